"""What setup.cfg cannot say: where configs/ goes, and README.md with links that work elsewhere."""

import configparser
import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent


def absolute(text: str, repository: str) -> str:
    """Markdown whose pictures and links to files of the repository lead there from anywhere."""

    def replaced(found: re.Match[str]) -> str:
        picture, words, target = found.groups()
        kind = "raw" if picture else "blob"
        return f"{picture}[{words}]({repository}/{kind}/HEAD/{target})"

    return re.sub(r"(!?)\[([^]]*)\]\((?!\w+:|#)([^)]+)\)", replaced, text)


metadata = configparser.ConfigParser()
metadata.read(ROOT / "setup.cfg", encoding="utf-8")
url = metadata["metadata"]["url"]

setup(
    # In a clone configs/ is at the top, where --config=configs/vgg.py finds it. Installed it is
    # inside the package: a folder `configs` beside that might be anybody's.
    packages=[*find_packages(include=["cellcount_jax*"]), "cellcount_jax.configs"],
    package_dir={"cellcount_jax.configs": "configs"},
    long_description=absolute((ROOT / "README.md").read_text(encoding="utf-8"), url),
    project_urls={
        "Documentation": f"{url}/tree/HEAD/docs",
        "Changelog": f"{url}/blob/HEAD/CHANGELOG.md",
        "Source": url,
        "Issues": f"{url}/issues",
    },
)
