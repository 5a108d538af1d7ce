"""The commands that pages show are ones the API takes."""

from __future__ import annotations

import html
import json
import re

import pytest
from django.test import Client

from portal.hosting.models import App
from tests.conftest import People

pytestmark = pytest.mark.usefixtures("plans")


def test_the_first_app_can_be_made_as_the_empty_page_says(owner: Client, people: People) -> None:
    page = html.unescape(owner.get("/teams/acme/").content.decode())
    shown = re.search(r"-d '(\{[^']*\})' '[^']*(/api/v1/[^']*)'", page)
    assert shown is not None, "the page shows no call"
    pipeline = Client(headers={"Authorization": f"Bearer {people.token(people.owner, 'write')}"})
    made = pipeline.post(shown[2], shown[1], content_type="application/json")
    assert made.status_code == 201, made.content
    app = App.objects.get(slug=json.loads(shown[1])["app"])
    assert app.team == people.team
    assert f"/api/v1/apps/{app.slug}/deployments" in page
