"""Asks the stand-in, through the Hub's own client, what pushing and loading happen not to ask."""

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, HfFileSystem, RepoFile
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

REPO, DATASET = "me/scratch", {"repo_type": "dataset"}

if __name__ == "__main__":
    api = HfApi()
    assert api.whoami()["name"] == "me"
    api.create_repo(REPO, **DATASET)
    first = api.repo_info(REPO, **DATASET).sha
    content = bytes(range(200)) * 10
    additions = [CommitOperationAdd("a/b/large.parquet", content), CommitOperationAdd("a/small.bin", content)]
    api.create_commit(REPO, additions, commit_message="Two files", parent_commit=first, **DATASET)
    [branch] = api.list_repo_refs(REPO, **DATASET).branches
    assert branch.target_commit == api.repo_info(REPO, **DATASET).sha != first

    large, folder = api.get_paths_info(REPO, ["a/b/large.parquet", "a/b", "missing"], **DATASET)
    assert large.lfs.size == large.size == len(content) and not isinstance(folder, RepoFile)
    tree = api.list_repo_tree(REPO, "a", recursive=True, **DATASET)
    assert [item.path for item in tree] == ["a/b", "a/b/large.parquet", "a/small.bin"]
    with HfFileSystem().open(f"datasets/{REPO}/a/small.bin", block_size=64) as file:
        file.seek(1500)
        assert file.read(10) == content[1500:1510]

    deletion = [CommitOperationDelete("a/small.bin")]
    with pytest.raises(HfHubHTTPError) as refused:
        api.create_commit(REPO, deletion, commit_message="Too late", parent_commit=first, **DATASET)
    assert refused.value.response.status_code == 412
    assert api.file_exists(REPO, "a/small.bin", **DATASET)
    api.create_commit(REPO, deletion, commit_message="In time", **DATASET)
    assert not api.file_exists(REPO, "a/small.bin", **DATASET)
    api.delete_repo(REPO, **DATASET)
    with pytest.raises(RepositoryNotFoundError):
        api.repo_info(REPO, **DATASET)
