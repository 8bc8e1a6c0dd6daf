"""Loads both configurations of a curated dataset from the Hub and saves them: ``load_client.py REPO REVISION OUT``."""

import sys

import datasets

if __name__ == "__main__":
    repo_id, revision, out = sys.argv[1:]
    datasets.load_dataset(repo_id, revision=revision).save_to_disk(f"{out}/default")
    datasets.load_dataset(repo_id, "scores", revision=revision).save_to_disk(f"{out}/scores")
