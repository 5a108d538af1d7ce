"""Pages about people: the account, its tokens, a team's members, the platform's users."""

from __future__ import annotations

from allauth.core import ratelimit
from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.db import transaction
from django.db.models import Count
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from portal import mail
from portal.accounts import actions, passwords
from portal.accounts.access import actor_of, can, get_team, require_operator
from portal.accounts.forms import SCOPES, ForgotForm, MemberForm, NewPasswordForm, TokenForm, UserForm
from portal.accounts.models import ApiToken, Membership, Role, User
from portal.errors import PortalError
from portal.told import refused, sentence, told


@login_required
@require_GET
def profile(request: HttpRequest) -> HttpResponse:
    """Who one is here, how pages look, the way to the password."""
    actor = actor_of(request)
    rows = Membership.objects.filter(user=actor.user).select_related("team").order_by("team__name")
    return render(request, "me/profile.html", {"memberships": rows, "section": "profile"})


@login_required
@require_POST
def theme(request: HttpRequest) -> HttpResponse:
    """System, light or dark."""
    with told(request):
        actions.set_theme(actor_of(request), request.POST.get("theme", ""))
    return redirect("accounts:profile")


@login_required
@require_http_methods(["GET", "POST"])
def tokens(request: HttpRequest) -> HttpResponse:
    """A person's tokens; a new one is shown once, in the answer that made it."""
    actor = actor_of(request)
    assert actor.user is not None
    form = TokenForm(request.POST or None, user=actor.user, initial={"app_slug": request.GET.get("app", "")})
    made = None
    if request.method == "POST" and form.is_valid():
        data = form.cleaned_data
        with refused(form):
            made = actions.create_token(
                actor,
                data["membership"],
                name=data["name"],
                scopes=[data["scope"]],
                app_slug=data["app_slug"].strip(),
                expires_at=form.expires_at(),
            )
    if made is not None:
        form = TokenForm(user=actor.user)
    mine = ApiToken.objects.filter(membership__user=actor.user).select_related("membership__team")
    context = {
        "form": form, "made": made, "tokens": mine.order_by("-created_at"), "section": "tokens",
        "hints": {key: words[1] for key, words in SCOPES.items()},
    }  # fmt: skip
    response = render(request, "me/tokens.html", context, status=422 if form.is_bound and not form.is_valid() else 200)
    response["Cache-Control"] = "no-store"
    return response


@login_required
@require_POST
def revoke(request: HttpRequest, pk: int) -> HttpResponse:
    """End one of one's own tokens."""
    actor = actor_of(request)
    token = get_object_or_404(ApiToken.objects.select_related("membership__team"), pk=pk, membership__user=actor.user)
    with told(request, f"Token {token.name} is revoked. Calls with it get 401 from now on."):
        actions.revoke_token(actor, token)
    return redirect("accounts:tokens")


@login_required
@require_http_methods(["GET", "POST"])
def members(request: HttpRequest, slug: str) -> HttpResponse:
    """Who is in the team; owners add people."""
    actor = actor_of(request)
    team = get_team(actor, slug, "read" if request.method == "GET" else "admin")
    form = MemberForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        with refused(form, "who"):
            actions.add_member(actor, team, form.cleaned_data["who"], form.cleaned_data["role"])
        if form.is_valid():
            return redirect("accounts:members", slug)
    rows = team.memberships.select_related("user").annotate(n_tokens=Count("tokens")).order_by("created_at")
    context = {
        "team": team, "form": form, "members": rows, "roles": Role.choices,
        "may_admin": can(actor, "admin", team), "section": "members",
    }  # fmt: skip
    return render(request, "team/members.html", context, status=422 if form.errors else 200)


@login_required
@require_POST
def member(request: HttpRequest, slug: str, pk: int) -> HttpResponse:
    """Change a member's role, or end the membership; anyone may leave."""
    actor = actor_of(request)
    team = get_team(actor, slug)
    row = get_object_or_404(Membership.objects.select_related("user", "team"), pk=pk, team=team)
    if request.POST.get("do") == "remove":
        with told(request, f"{row.user.username} is no longer in {team.name}; tokens of that membership ended too."):
            actions.remove_member(actor, row)
        return redirect("accounts:members", slug) if can(actor, "read", team) else redirect("pages:home")
    with told(request, f"{row.user.username} is now {request.POST.get('role', '')} in {team.name}."):
        actions.change_role(actor, row, request.POST.get("role", ""))
    return redirect("accounts:members", slug)


@login_required
@require_http_methods(["GET", "POST"])
def users(request: HttpRequest) -> HttpResponse:
    """Everybody with an account (operators); makes new ones."""
    actor = actor_of(request)
    require_operator(actor)
    form = UserForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        with refused(form):
            user = actions.create_user(actor, **form.cleaned_data)
        if form.is_valid():
            with told(request, f"{user.username} can sign in now. Give the person a team on the team’s own page."):
                return redirect("accounts:users")
    return _users_page(request, form)


def _users_page(request: HttpRequest, form: UserForm, **more: object) -> HttpResponse:
    rows = User.objects.prefetch_related("memberships__team").order_by("username")
    page = Paginator(rows, 50).get_page(request.GET.get("page"))
    context = {"form": form, "page": page, "section": "users", "hours": passwords.VALID_HOURS, **more}
    return render(request, "operator/users.html", context, status=422 if form.errors else 200)


@login_required
@require_POST
def password_link(request: HttpRequest, pk: int) -> HttpResponse:
    """A link that sets a person's new password (operators), shown once, in the answer that made it."""
    actor = actor_of(request)
    require_operator(actor)
    person = get_object_or_404(User, pk=pk)
    link = ""
    with told(request):
        link = passwords.make_link(actor, person)
    response = _users_page(request, UserForm(), link=link, person=person)
    response["Cache-Control"] = "no-store"
    return response


@require_http_methods(["GET", "POST"])
def forgot(request: HttpRequest) -> HttpResponse:
    """Whoever lost the password asks for a link by mail; what is answered tells nobody who has an account."""
    form = ForgotForm(request.POST or None)
    asked = request.method == "POST" and mail.is_sent() and form.is_valid()
    if asked:
        if not ratelimit.consume(request, action="reset_password", key=form.cleaned_data["who"].strip().lower()):
            raise PortalError("Too many links were asked for.", "Ask again in a minute.", code="too_many", status=429)
        passwords.ask_for_link(form.cleaned_data["who"])
    context = {"form": form, "asked": asked, "mails": mail.is_sent(), "hours": passwords.VALID_HOURS}
    return render(request, "account/password_forgot.html", context)


@require_http_methods(["GET", "POST"])
def new_password(request: HttpRequest, key: str, token: str) -> HttpResponse:
    """Where a link leads: the new password, twice."""
    form = NewPasswordForm(request.POST or None)
    context: dict[str, object] = {"form": form}
    try:
        with transaction.atomic():
            context["person"] = passwords.user_of_link(key, token)
        if request.method == "POST" and form.is_valid():
            with refused(form, "password"):
                context["done"] = passwords.set_password(key, token, form.cleaned_data["password"])
    except passwords.DeadLink as error:
        context["dead"] = sentence(error)
    status = 410 if "dead" in context else 422 if form.errors else 200
    response = render(request, "account/password_new.html", context, status=status)
    response["Cache-Control"] = "no-store"
    return response
