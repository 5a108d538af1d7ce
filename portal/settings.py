"""Django's settings, all from `portal.config`."""

from __future__ import annotations

import secrets as stdlib_secrets
from pathlib import Path

from portal import secrets
from portal.config import config
from portal.databases import database_from_url
from portal.mail import mail_from_url
from portal.static_tree import tree_digest

CONFIG = config()
BASE_DIR = Path(__file__).resolve().parent.parent

# Without a platform (type checks, `--help`) the key lives as long as the process; the servers refuse to start so (asgi.py).
SECRETS_MADE = (CONFIG.secrets / "secret_key").exists()
SECRET_KEY = secrets.read("secret_key") if SECRETS_MADE else stdlib_secrets.token_urlsafe(48)

DEBUG = False
# "portal" is what workers on this host call it over the unix socket.
ALLOWED_HOSTS = [CONFIG.portal_host, "localhost", "127.0.0.1", "[::1]", "portal"]

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.humanize",
    "channels",
    "allauth",
    "allauth.account",
    "axes",
    "portal.accounts",
    "portal.audit",
    "portal.plans",
    "portal.images",
    "portal.fleet",
    "portal.volumes",
    "portal.hosting",
    "portal.releases",
    "portal.telemetry",
    "portal.pages",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "portal.headers.ContentSecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "portal.errors.PortalErrorMiddleware",
    "axes.middleware.AxesMiddleware",
]

ROOT_URLCONF = "portal.urls"
ASGI_APPLICATION = "portal.asgi.application"
APPEND_SLASH = True

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "portal.context.platform",
            ],
        },
    }
]

DATABASES = {"default": database_from_url(CONFIG.database_url)}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
        "CONFIG": {"hosts": [CONFIG.redis_url]},
    }
}
CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}

AUTH_USER_MODEL = "accounts.User"
AUTHENTICATION_BACKENDS = [
    "axes.backends.AxesStandaloneBackend",
    "allauth.account.auth_backends.AuthenticationBackend",
]
PASSWORD_HASHERS = [
    "django.contrib.auth.hashers.ScryptPasswordHasher",
    "django.contrib.auth.hashers.PBKDF2PasswordHasher",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 8}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "/"
ACCOUNT_LOGOUT_REDIRECT_URL = "account_login"
ACCOUNT_ADAPTER = "portal.accounts.adapter.AccountAdapter"
ACCOUNT_LOGIN_METHODS = {"username", "email"}
ACCOUNT_SIGNUP_FIELDS = ["username*", "email*", "password1*", "password2*"]
ACCOUNT_EMAIL_VERIFICATION = "none"
ACCOUNT_SESSION_REMEMBER = True
# Failed logins are counted by axes, in the database; allauth's own limit would be per process.
ACCOUNT_RATE_LIMITS = {"login_failed": None}
AXES_FAILURE_LIMIT = 10
AXES_COOLOFF_TIME = 0.25  # hours
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_RESET_ON_SUCCESS = True
AXES_USERNAME_CALLABLE = "portal.accounts.adapter.attempted_username"
AXES_LOCKOUT_CALLABLE = "portal.accounts.adapter.locked_out"
AXES_VERBOSE = False
AXES_CLIENT_IP_CALLABLE = "portal.accounts.adapter.client_address"

globals().update(mail_from_url(CONFIG.email_url))
DEFAULT_FROM_EMAIL = CONFIG.email_from
PASSWORD_RESET_TIMEOUT = 24 * 3600  # of the links that set a new password

SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = CONFIG.scheme == "https"
SESSION_COOKIE_AGE = 14 * 24 * 3600
CSRF_FAILURE_VIEW = "portal.errors.csrf_failure"
CSRF_TRUSTED_ORIGINS = [CONFIG.public_url]
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
DATA_UPLOAD_MAX_MEMORY_SIZE = 10_000_000

LANGUAGE_CODE = "en-gb"
USE_I18N = False
USE_TZ = True
TIME_ZONE = "UTC"

STATIC_ROOT = BASE_DIR / "static"
# The digest of the whole tree stands in the path, so that relative url()s in style sheets stay right and names are for ever.
STATIC_DIGEST = tree_digest(STATIC_ROOT)
STATIC_URL = f"/static/{STATIC_DIGEST}/"

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "{asctime} {levelname} {name}: {message}", "style": "{"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["console"], "level": "INFO"},
    "loggers": {
        "django.request": {"level": "ERROR"},
        "axes": {"level": "WARNING"},
        "django.channels": {"level": "WARNING"},
        # The reaper runs every 5 s: a line each would be all there is to read.
        "celery.app.trace": {"level": "WARNING"},
        "celery.beat": {"level": "WARNING"},
        "celery.worker.strategy": {"level": "WARNING"},
    },
}
