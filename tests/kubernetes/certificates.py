"""Certificates for one control plane, made with openssl in a folder of the test."""

from __future__ import annotations

import subprocess
from pathlib import Path

DAYS = "2"


class Authority:
    """A certificate authority and what it signs; files are <name>.pem and <name>.key."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        key = ["-newkey", "rsa:2048", "-nodes", "-keyout", str(folder / "ca.key")]
        openssl("req", "-x509", *key, "-days", DAYS, "-subj", "/CN=test", "-out", self.file("ca"))

    def file(self, name: str) -> str:
        return str(self.folder / f"{name}.pem")

    def key(self, name: str) -> str:
        return str(self.folder / f"{name}.key")

    def sign(self, name: str, subject: str, *, addresses: str = "") -> None:
        request = str(self.folder / f"{name}.csr")
        extensions = self.folder / f"{name}.ext"
        extensions.write_text(f"subjectAltName={addresses}\n" if addresses else "")
        made = ["-newkey", "rsa:2048", "-nodes", "-keyout", self.key(name)]
        openssl("req", *made, "-subj", subject, "-out", request)
        authority = ["-CA", self.file("ca"), "-CAkey", self.key("ca"), "-CAcreateserial"]
        words = ["-req", "-in", request, *authority, "-days", DAYS, "-out", self.file(name)]
        openssl("x509", *words, "-extfile", str(extensions))

    def key_pair(self, name: str) -> None:
        """For signing tokens: <name>.key and <name>.pem (public)."""
        openssl("genrsa", "-out", self.key(name), "2048")
        openssl("rsa", "-in", self.key(name), "-pubout", "-out", self.file(name))


def openssl(*words: str) -> None:
    subprocess.run(["openssl", *words], check=True, capture_output=True)
