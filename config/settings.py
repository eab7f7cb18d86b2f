"""Django's settings. What an operator may change comes from `config.env`; everything else is decided here."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from config import env
from config.logging import LOGGING as LOGGING_CONFIGURATION

BASE_DIR = env.BASE_DIR
HOME = env.HOME

SECRET_KEY = env.secret("SECRET_KEY", min_length=50)  # signs sessions and forms; made at the first start
DEBUG = env.boolean("DEBUG", default=False)  # for developers: error pages with source; never on a server
EMBEDDED = env.boolean("EMBEDDED", default=False)  # set by `make up`: everything runs on this machine

PUBLIC_URL = env.text("PUBLIC_URL").rstrip("/")  # where people and registry clients reach us: scheme://host[:port]
_public = urlsplit(PUBLIC_URL)
if _public.scheme not in {"http", "https"} or not _public.hostname or _public.path:
    raise env.BadSetting("PUBLIC_URL", "expected http(s)://host[:port] without a path")
IS_HTTPS = _public.scheme == "https"
if not IS_HTTPS and _public.hostname not in {"localhost", "127.0.0.1"}:
    raise env.BadSetting("PUBLIC_URL", "plain http is only for localhost; put TLS in front and give the https address")
ALLOWED_HOSTS = env.words("ALLOWED_HOSTS", _public.hostname)  # names that requests may carry; PUBLIC_URL's

INSTALLED_APPS = [
    "accounts",
    "lifecycle",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "django.contrib.postgres",
    "guardian",
    "allauth",
    "allauth.account",
    "rest_framework",
    "drf_spectacular",
    "django_htmx",
    "csp",
]

MIDDLEWARE = [
    "lifecycle.core.middleware.RequestContextMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "csp.middleware.CSPMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.auth.middleware.LoginRequiredMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "lifecycle.pages.middleware.ErrorAnswerMiddleware",
    "lifecycle.api.idempotency.IdempotencyMiddleware",  # innermost: it repeats what a view answered
]

ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

TEMPLATES: list[dict[str, Any]] = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "lifecycle.pages.chrome.chrome",
            ],
            "builtins": ["lifecycle.pages.templatetags.gravingdock"],
        },
    },
]


def database(url: str) -> dict[str, Any]:
    """Return Django's settings for `postgres://user:password@host:port/name[?host=/socket/folder&sslmode=...]`."""
    parts = urlsplit(url)
    if parts.scheme not in {"postgres", "postgresql"} or not parts.path.strip("/"):
        raise env.BadSetting("DATABASE_URL", "expected postgres://user:password@host:port/name")
    query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": unquote(parts.path.strip("/")),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": query.pop("host", parts.hostname or ""),
        "PORT": str(parts.port or ""),
        "CONN_MAX_AGE": 60,
        "CONN_HEALTH_CHECKS": True,
        "OPTIONS": {
            "connect_timeout": 5,
            # A row that is not to be had in 5 s is a bug or a jam: fail, and let the job try again.
            "options": "-c lock_timeout=5s -c idle_in_transaction_session_timeout=60s",
            **query,
        },
    }


# Every process runs as the application role; `manage.py migrate` alone takes the owner role (config/owner.py).
DATABASES = {"default": database(env.text("DATABASE_URL"))}  # postgres://..., as the application role
DATABASE_OWNER_URL = env.text("DATABASE_OWNER_URL", env.text("DATABASE_URL"))  # as the owner; DATABASE_URL
DATABASE_APP_ROLE = DATABASES["default"]["USER"]

REDIS_URL = env.text("REDIS_URL")  # redis://:password@host:port/number; wake-ups and cache
CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": REDIS_URL,
        "KEY_PREFIX": "gd",
        "OPTIONS": {"socket_connect_timeout": 2, "socket_timeout": 2},
    }
}
SESSION_ENGINE = "django.contrib.sessions.backends.db"  # never in the broker's Redis
SESSION_COOKIE_AGE = 14 * 24 * 3600
SESSION_COOKIE_NAME = "__Host-session" if IS_HTTPS else "gd_session"
CSRF_COOKIE_NAME = "__Host-csrf" if IS_HTTPS else "gd_csrf"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = IS_HTTPS
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Lax"
CSRF_TRUSTED_ORIGINS = [PUBLIC_URL]

AUTH_USER_MODEL = "accounts.User"
AUTHENTICATION_BACKENDS = [
    "allauth.account.auth_backends.AuthenticationBackend",
    "guardian.backends.ObjectPermissionBackend",
]
PASSWORD_HASHERS = [
    "django.contrib.auth.hashers.ScryptPasswordHasher",
    "django.contrib.auth.hashers.PBKDF2PasswordHasher",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "/"
ACCOUNT_ADAPTER = "lifecycle.pages.authority.sign_in.SignInAdapter"
ACCOUNT_LOGIN_METHODS = {"username"}
ACCOUNT_SIGNUP_FIELDS = ["username*", "password1*"]  # sign-up is closed by the adapter
ACCOUNT_EMAIL_VERIFICATION = "none"
ACCOUNT_LOGOUT_ON_GET = False
ACCOUNT_FORMS = {"change_password": "lifecycle.pages.authority.sign_in.ChangePasswordForm"}
ACCOUNT_RATE_LIMITS = False  # one limiter for every door, in PostgreSQL: lifecycle/registry/limiter.py
ACCOUNT_SESSION_REMEMBER = True
ANONYMOUS_USER_NAME = None  # guardian: no anonymous row
GUARDIAN_AUTO_PREFETCH = False

LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_I18N = False
USE_TZ = True

STATIC_URL = "/static/"
STATIC_ROOT = env.HOME / "static"
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.InMemoryStorage"},
    "staticfiles": {
        "BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"
        if DEBUG
        else "whitenoise.storage.CompressedManifestStaticFilesStorage"
    },
}
WHITENOISE_USE_FINDERS = DEBUG
APPEND_SLASH = False  # a redirect drops the body of a notification

SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin"
SECURE_HSTS_SECONDS = 365 * 24 * 3600 if IS_HTTPS else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = IS_HTTPS
X_FRAME_OPTIONS = "DENY"
# Believe X-Forwarded-Proto, and the last X-Forwarded-For: only where a proxy always sets both.
BEHIND_PROXY = env.boolean("BEHIND_PROXY", default=False)
if BEHIND_PROXY:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": ["'none'"],
        "script-src": ["'self'"],
        "style-src": ["'self'"],
        "img-src": ["'self'", "data:"],
        "connect-src": ["'self'"],
        "form-action": ["'self'"],
        "base-uri": ["'none'"],
        "frame-ancestors": ["'none'"],
    }
}
DATA_UPLOAD_MAX_MEMORY_SIZE = 32 * 1024 * 1024  # a recipe's build context, base64
FILE_UPLOAD_HANDLERS = [
    "lifecycle.pages.uploads.BoundedUpload",  # first: it refuses before the others keep anything
    "django.core.files.uploadhandler.MemoryFileUploadHandler",
    "django.core.files.uploadhandler.TemporaryFileUploadHandler",
]
SILENCED_SYSTEM_CHECKS = ["security.W008"]  # the proxy redirects to https: we never redirect a notification

REST_FRAMEWORK: dict[str, Any] = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "lifecycle.api.authentication.TokenAuthentication",
        "lifecycle.api.authentication.BrowserSessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["lifecycle.api.rendering.FastJSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "lifecycle.api.errors.problem_response",
    "DEFAULT_PAGINATION_CLASS": "lifecycle.api.pagination.KeysetPagination",
    "UNAUTHENTICATED_USER": "django.contrib.auth.models.AnonymousUser",
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
}
SPECTACULAR_SETTINGS: dict[str, Any] = {
    "TITLE": "Gravingdock",
    "DESCRIPTION": "The life of container images: lineage, findings, promotion, rebuild.",
    "VERSION": "1",
    "OAS_VERSION": "3.1.0",
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_PERMISSIONS": ["rest_framework.permissions.IsAuthenticated"],
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "COMPONENT_SPLIT_REQUEST": True,
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "lifecycle.api.schema.add_what_all_share",
    ],
    "ENUM_NAME_OVERRIDES": {
        "PromotionState": "lifecycle.promotion.models.PromotionRequest.State",
        "PromotionKind": "lifecycle.promotion.models.PromotionRequest.Kind",
        "JobState": "lifecycle.jobs.models.Job.State",
        "RebuildWaveState": "lifecycle.rebuild.models.RebuildWave.State",
        "RebuildJobState": "lifecycle.rebuild.models.RebuildJob.State",
    },
}

# --- jobs -------------------------------------------------------------------------------------------------------------
JOB_LEASE_S = env.integer("JOB_LEASE_S", 30, minimum=1)  # seconds after which a dead worker's job is free
JOB_SWEEP_S = env.integer("JOB_SWEEP_S", 5, minimum=1)  # seconds between looks for lost wake-ups
WORKER_DEAF_S = env.integer("WORKER_DEAF_S", 30, minimum=3)  # seconds that work may wait beside an idle worker
CRAWL_EVERY_S = env.integer("CRAWL_EVERY_S", 600, minimum=1)  # seconds between looks for lost notifications

# --- the managed registry ---------------------------------------------------------------------------------------------
REGISTRY_URL = env.text("REGISTRY_URL").rstrip("/")  # scheme://host:port where we reach the managed registry
# The same as clients write it, and pages show it; default: REGISTRY_URL.
REGISTRY_PUBLIC_URL = env.text("REGISTRY_PUBLIC_URL", REGISTRY_URL).rstrip("/")
TOKEN_ISSUER = env.text("TOKEN_ISSUER", "gravingdock")  # `issuer` in the registry's configuration
REGISTRY_SERVICE = env.text("REGISTRY_SERVICE", "gravingdock-registry")  # `service` in the registry's own
TOKEN_KEY = env.text("TOKEN_KEY")  # PEM, EC P-256 private key; usually given as TOKEN_KEY_FILE
TOKEN_CERT = env.text("TOKEN_CERT")  # PEM, the self-signed certificate of that key; usually TOKEN_CERT_FILE
REGISTRY_HOOK_SECRET = env.secret("REGISTRY_HOOK_SECRET")  # what its notifications carry as bearer token
FIELD_KEY = env.secret("FIELD_KEY", min_length=44)  # encrypts stored credentials; without it they are lost
OUTBOUND_ALLOW = env.words("OUTBOUND_ALLOW", "")  # host[:port] that outbound requests may reach although private
UBUNTU_PRO = env.boolean("UBUNTU_PRO", False)  # whether fixes of Ubuntu Pro count: only with that channel on

# --- scans and builds -------------------------------------------------------------------------------------------------
SYFT = env.text("SYFT", "")  # path of syft; empty: the one on PATH, else the wheel's
BUILD_CA_BUNDLE = env.text("BUILD_CA_BUNDLE", "")  # extra CA bundle mounted into builds, never stored in images
BUILD_TIMEOUT_S = env.integer("BUILD_TIMEOUT_S", 1800, minimum=10)  # seconds a build may take
SCRATCH = env.text("SCRATCH", str(HOME / "scratch") if EMBEDDED else "")  # a folder for layers and builds

LOGGING = LOGGING_CONFIGURATION
LOGGING_CONFIG = "logging.config.dictConfig"
