"""Pages of the accounts app."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver, path

from portal.accounts import views

app_name = "accounts"
urlpatterns: list[URLPattern | URLResolver] = [
    path("account/", views.profile, name="profile"),
    path("account/theme", views.theme, name="theme"),
    path("account/tokens", views.tokens, name="tokens"),
    path("account/tokens/<int:pk>/revoke", views.revoke, name="revoke"),
    path("teams/<slug:slug>/members", views.members, name="members"),
    path("teams/<slug:slug>/members/<int:pk>", views.member, name="member"),
    path("accounts/password/reset/<slug:key>/<slug:token>/", views.new_password, name="new_password"),
    path("operator/users", views.users, name="users"),
    path("operator/users/<int:pk>/password", views.password_link, name="password_link"),
]
