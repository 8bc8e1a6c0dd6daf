"""Saves what ``ost_hf.load_curated`` gives of a repository: ``curated_client.py REPO REVISION OUT``."""

import sys

import ost_hf

if __name__ == "__main__":
    repo_id, revision, out = sys.argv[1:]
    curated = ost_hf.load_curated(repo_id, revision=revision)
    curated.kept.save_to_disk(f"{out}/kept")
    curated.scores.save_to_disk(f"{out}/scores")
    curated.selection.write(out)
