"""Push-to-deploy: a pushed tag that an app follows starts a deployment, by the action of every other door."""

from __future__ import annotations

from collections.abc import Mapping

from portal.accounts.actor import Actor
from portal.errors import PortalError
from portal.hosting.models import App
from portal.images.manifests import deployable
from portal.images.models import Image
from portal.images.registry import RegistryError
from portal.images.target import Target
from portal.releases import actions
from portal.releases.models import Deployment, DeploymentState

_GONE = frozenset({DeploymentState.FAILED, DeploymentState.CANCELLED})


def deploy_pushed(actor: Actor, target: Target, image: Image, tag: str, news: bool) -> Mapping[str, str]:
    """Headers of the push's answer: the deployment's address, or a Warning with the reason why there is none.

    A push that is repeated because its answer was lost deploys once: the tag is no news, and its image runs or is under way.
    """
    app = App.objects.select_related("team", "plan").get(team=target.team, slug=target.slug)
    if not app.deploy_on_push or tag != app.follow_tag:
        return {}
    try:
        found = deployable(image)
        last = Deployment.objects.filter(app=app).select_related("release").order_by("-number").first()
        if news or last is None or last.release.image_id != found.pk or last.state in _GONE:
            last = actions.deploy(actor, app, found, note=f"pushed as {tag}")
    except (PortalError, RegistryError) as error:
        text = f"{app.slug} was not deployed: {error}".replace("\\", "/").replace('"', "'")
        return {"warning": '299 - "' + "".join(c if " " <= c <= "~" else "?" for c in text) + '"'}
    address = f"/api/v1/apps/{app.slug}/deployments/{last.number}"
    return {"moorage-deployment": address, "link": f'<{address}>; rel="related"'}
