"""The five images of the demonstration, on four levels, and their changes after the upstream update.

They use older releases because those have published advisories. The findings and fixes come from the advisories and the
mirrors; none of them is hard-coded in this project.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

PIP: Final = (
    "pip install --break-system-packages --root-user-action=ignore --no-cache-dir --no-compile --progress-bar=off"
)


@dataclass(frozen=True, slots=True)
class Product:
    """An image: its repository, its maintainer and its recipe."""

    repository: str
    tag: str
    keeper: str  # the account that pushes it
    title: str
    containerfile: str
    files: Mapping[str, bytes] = field(default_factory=dict, hash=False)
    has_recipe: bool = True  # whether Gravingdock stores the recipe; the lowest base is external

    @property
    def labels(self) -> dict[str, str]:
        """The labels of the image (image-spec annotations.md)."""
        return {
            "org.opencontainers.image.title": self.repository,
            "org.opencontainers.image.description": self.title,
            "org.opencontainers.image.vendor": f"team {self.repository.partition('/')[0]}",
        }

    @property
    def recipe(self) -> str:
        """The Containerfile with the labels, so that a rebuilt image has the same labels as the first one."""
        return self.containerfile + "".join(f'LABEL {name}="{value}"\n' for name, value in self.labels.items())

    @property
    def reference(self) -> str:
        """`repository:tag`, as in the FROM of another recipe."""
        return f"{self.repository}:{self.tag}"


ROOT_ARCHIVE: Final = "rootfs.tar"

DEBIAN: Final = Product(
    repository="base/debian",
    tag="bookworm",
    keeper="base-maintainer",
    title="A minimal Debian 12 with openssl, ca-certificates and curl",
    containerfile=f'FROM scratch\nADD {ROOT_ARCHIVE} /\nCMD ["/bin/bash"]\n',
    has_recipe=False,
)

PYTHON: Final = Product(
    repository="base/python",
    tag="3.11",
    keeper="base-maintainer",
    title="Debian's Python 3.11, with the libraries that every service uses",
    containerfile=f"""\
FROM {DEBIAN.reference}
RUN apt-get update \\
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3 python3-pip python3-venv \\
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/apt /var/log/dpkg.log
COPY requirements.txt /usr/share/base-python/requirements.txt
RUN {PIP} -r /usr/share/base-python/requirements.txt
ENV PYTHONUNBUFFERED=1
CMD ["python3"]
""",
    files={
        "requirements.txt": b"""\
certifi==2022.5.18.1
chardet==4.0.0
idna==2.10
requests==2.25.1
urllib3==1.26.5
"""
    },
)

# The same recipe with fixed releases: a change by the team that maintains the base.
PYTHON_FIXED: Final = replace(
    PYTHON,
    files={
        "requirements.txt": b"""\
certifi==2026.10.18
charset-normalizer==3.4.4
idna==3.15
requests==2.33.0
urllib3==2.6.3
"""
    },
)

API: Final = Product(
    repository="shop/api",
    tag="1.0",
    keeper="shop-developer",
    title="The shop's API",
    containerfile=f"""\
FROM {PYTHON.reference}
COPY requirements.txt /srv/api/requirements.txt
RUN {PIP} -r /srv/api/requirements.txt
COPY api.py /srv/api/api.py
WORKDIR /srv/api
CMD ["python3", "-m", "flask", "--app", "api", "run", "--host", "0.0.0.0"]
""",
    files={
        "requirements.txt": b"""\
click==8.1.3
flask==2.2.2
itsdangerous==2.1.2
jinja2==3.1.2
markupsafe==2.1.5
werkzeug==2.2.2
""",
        "api.py": b'''\
"""The shop's API: what is on the shelf."""

import flask

app = flask.Flask(__name__)


@app.get("/shelf")
def shelf() -> dict[str, int]:
    return {"rope": 12, "anchors": 3}
''',
    },
)

WORKER: Final = Product(
    repository="shop/worker",
    tag="1.0",
    keeper="shop-developer",
    title="The shop's worker: the API's code, and a queue",
    containerfile=f"""\
FROM {API.reference}
RUN {PIP} pyyaml==6.0.1
COPY worker.py orders.yaml /srv/worker/
CMD ["python3", "/srv/worker/worker.py"]
""",
    files={
        "worker.py": b'''\
"""The shop's worker: packs the orders of a file, one after the other."""

import pathlib

import yaml

for order in yaml.safe_load(pathlib.Path("/srv/worker/orders.yaml").read_text()):
    print("packed", order)
''',
        "orders.yaml": b"- rope\n- anchors\n",
    },
)

STATIC: Final = Product(
    repository="shop/static",
    tag="1.0",
    keeper="shop-developer",
    title="The shop's pages: static files only, so that the image can be rebased",
    containerfile=f"FROM {DEBIAN.reference}\nCOPY index.html shop.css /srv/www/\n",
    files={
        "index.html": b"""\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Ship chandler</title>
<link rel="stylesheet" href="shop.css">
<h1>Ship chandler</h1>
<p>Rope, anchors, and what else a ship needs.</p>
</html>
""",
        "shop.css": b"body { font-family: sans-serif; margin: 2rem; }\n",
    },
)

PRODUCTS: Final = (DEBIAN, PYTHON, API, WORKER, STATIC)  # in the order of the report
