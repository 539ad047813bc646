"""Where the book lives: the repository's address and the published one, both from `_config.yml`, and what follows from them.

`repository: {url, branch}` is the one place; `html: {baseurl}` is needed only where the site is not at the address that
GitHub Pages gives to that repository. Used by the site (`publishing`) and by `tools.notebooks`. Standard library only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9_-])?"  # an owner, a repository
EXAMPLE = "https://github.com/OWNER/REPOSITORY"


class AddressError(ValueError):
    """An address in `_config.yml` cannot be used; the message says what was expected."""


@dataclass(frozen=True)
class Addresses:
    """The addresses of one copy of the book.

    Parameters
    ----------
    repository : str
        `https://HOST/OWNER/NAME`, without a slash or `.git` at its end; empty if there is none.
    branch : str
    site : str
        Where the site is published, with a slash at its end; empty if nobody knows.
    """

    repository: str = ""
    branch: str = "main"
    site: str = ""

    @property
    def host(self) -> str:
        """`github.com`, say."""
        return urlsplit(self.repository).netloc.lower()

    @property
    def path(self) -> str:
        """`OWNER/NAME`; on GitLab there may be groups between the two."""
        return urlsplit(self.repository).path.strip("/")

    def edit(self, file: str) -> str:
        """Where `file` is edited in the browser; empty where the host's form is not known."""
        form = {"github.com": "edit", "gitlab.com": "-/edit", "codeberg.org": "_edit"}.get(self.host)
        return f"{self.repository}/{form}/{quote(self.branch)}/{quote(file)}" if form else ""

    def issue(self, title: str) -> str:
        """Where an issue about a page is opened; empty where the host's form is not known."""
        form = {"github.com": "issues/new?title=", "gitlab.com": "-/issues/new?issue[title]=",
                "codeberg.org": "issues/new?title="}.get(self.host)
        return f"{self.repository}/{form}{quote(title, safe='')}" if form else ""

    def colab(self, file: str) -> str:
        """`file` in Google Colab, which reads from GitHub only."""
        if self.host != "github.com":
            return ""
        return f"https://colab.research.google.com/github/{self.path}/blob/{quote(self.branch)}/{quote(file)}"

    def binder(self, file: str) -> str:
        """`file` in JupyterLab on mybinder.org."""
        if not self.repository:
            return ""
        where = {"github.com": f"gh/{self.path}", "gitlab.com": f"gl/{quote(self.path, safe='')}"}.get(
            self.host, f"git/{quote(self.repository, safe='')}")
        return f"https://mybinder.org/v2/{where}/{quote(self.branch, safe='')}?urlpath={quote('lab/tree/' + file, safe='')}"

    def page(self, name: str) -> str:
        """The published address of a page or file; empty if the site has none."""
        return f"{self.site}{quote(name)}" if self.site else ""


def read(repository: str | None, branch: str | None = None, site: str | None = None) -> Addresses:
    """Check the values of `_config.yml` and complete them.

    Parameters
    ----------
    repository : str or None
        `repository: url:`; nothing is a good answer.
    branch : str or None
        `repository: branch:`, by default `main`.
    site : str or None
        `html: baseurl:`. If empty, GitHub Pages' address of a repository on github.com.

    Returns
    -------
    Addresses

    Raises
    ------
    AddressError
        If a value is no address of the form that is needed.
    """
    repository, branch, site = (str(value or "").strip() for value in (repository, branch, site))
    branch = branch or "main"
    if repository:
        repository = repository.rstrip("/").removesuffix(".git")
        parts = urlsplit(repository)
        owner_and_name = re.fullmatch(rf"/{PART}(?:/{PART})+", parts.path)
        if parts.scheme != "https" or not re.fullmatch(r"[A-Za-z0-9.-]+\.[A-Za-z]{2,}", parts.netloc) or not owner_and_name \
                or parts.query or parts.fragment or (parts.netloc.lower() == "github.com" and parts.path.count("/") != 2):
            raise AddressError(f"_config.yml, repository: url: is {repository!r}, expected {EXAMPLE}, or nothing")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/-]*", branch):
        raise AddressError(f"_config.yml, repository: branch: is {branch!r}, expected the name of a branch")
    if site:
        parts = urlsplit(site)
        if parts.scheme not in ("https", "http") or not re.fullmatch(r"[A-Za-z0-9.-]+(?::\d+)?", parts.netloc) \
                or not re.fullmatch(r"[A-Za-z0-9._~/-]*", parts.path) or parts.query or parts.fragment or site.endswith(".html"):
            raise AddressError(f"_config.yml, html: baseurl: is {site!r}, expected the address of the site's folder, "
                               "such as https://example.org/attention/, or nothing")
    elif urlsplit(repository).netloc.lower() == "github.com":
        owner, name = urlsplit(repository).path.strip("/").split("/")
        own = f"{owner.lower()}.github.io"
        site = f"https://{own}/" if name.lower() == own else f"https://{own}/{name}/"
    return Addresses(repository, branch, site and site.rstrip("/") + "/")
