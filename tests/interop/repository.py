"""Release repositories between python-tuf and ours, both ways, and a few hundred that are
broken: where python-tuf refuses, ours has to refuse as well.

Usage: repository.py VIWORKS_SIGN OUR_REPOSITORY WORK_DIR"""

import copy
import datetime
import json
import pathlib
import random
import shutil
import subprocess
import sys

from securesystemslib.signer import CryptoSigner
from tuf.api import exceptions
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization.json import JSONSerializer
from tuf.ngclient import FetcherInterface, Updater

BIN, OURS, WORK = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
NOW = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
SEED = random.randrange(1 << 32)
RANDOM = random.Random(SEED)
ROLES = {"root": (3, 2), "targets": (2, 2), "releases": (2, 2), "revocation": (1, 1), "snapshot": (1, 1), "timestamp": (1, 1)}
TARGETS = {"echo-1.0.0.wasm": b"component", "echo-1.0.0.wasm.intoto.jsonl": b"{}\n"}
REVOCATIONS = b'{"keys":[],"digests":[],"floors":[]}'


class Files(FetcherInterface):
    """Reads `repo://metadata/…` and `repo://targets/…` from a folder."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder

    def _fetch(self, url):
        path = self.folder / url.removeprefix("repo://")
        if not path.is_file():
            raise exceptions.DownloadHTTPError("absent", 404)
        yield path.read_bytes()


def python_reads(folder, root, known, names):
    """The verdict of python-tuf; `known` is its memory."""
    known.mkdir(parents=True, exist_ok=True)
    (known / "targets").mkdir(exist_ok=True)
    try:
        client = Updater(
            str(known), "repo://metadata/", str(known / "targets"), "repo://targets/", Files(folder), bootstrap=root
        )
        client.refresh()
        for name in names:
            info = client.get_targetinfo(name)
            if info is None:
                return f"no target {name}"
            client.download_target(info)
    except exceptions.RepositoryError as error:
        return f"{type(error).__name__}: {error}"
    except exceptions.DownloadError as error:
        return f"{type(error).__name__}: {error}"
    return None


def ours_reads(folder, root, state):
    """The verdict of our client, and its code."""
    done = subprocess.run(
        [BIN, "repo", "check", folder, "--root", root, "--state", state, "--output", "json"],
        capture_output=True, text=True, check=False,
    )
    if done.returncode not in (0, 1, 4):
        sys.exit(f"viworks-sign ended with {done.returncode}: {done.stderr}")
    answer = json.loads(done.stdout)
    return None if done.returncode == 0 else f"{answer['code']}: {answer['reason']}"


class Site:
    """A repository of python-tuf's, with the layout of ours."""

    def __init__(self):
        self.signers = {role: [CryptoSigner.generate_ed25519() for _ in range(n)] for role, (n, _) in ROLES.items()}
        later = NOW + datetime.timedelta(days=10)
        root = Root(expires=later, consistent_snapshot=True)
        for role in ("root", "targets", "snapshot", "timestamp"):
            for signer in self.signers[role]:
                root.add_key(signer.public_key, role)
            root.roles[role].threshold = ROLES[role][1]
        delegations = Delegations(keys={}, roles={})
        for role, paths in (("releases", ["*.wasm", "*.wasm.intoto.jsonl"]), ("revocation", ["revocations.json"])):
            keys = [signer.public_key for signer in self.signers[role]]
            delegations.keys.update({key.keyid: key for key in keys})
            delegations.roles[role] = DelegatedRole(role, [k.keyid for k in keys], ROLES[role][1], True, paths)
        releases = {name: TargetFile.from_data(name, data, ["sha256"]) for name, data in TARGETS.items()}
        revoked = {"revocations.json": TargetFile.from_data("revocations.json", REVOCATIONS, ["sha256"])}
        self.signed = {
            "root": root,
            "targets": Targets(expires=later, delegations=delegations),
            "releases": Targets(expires=later, targets=releases),
            "revocation": Targets(expires=later, targets=revoked),
            "snapshot": Snapshot(expires=later),
            "timestamp": Timestamp(expires=later),
        }
        self.signed["snapshot"].meta = {}
        self.hashes = True

    def next(self):
        """The next version of everything below the root."""
        other = copy.copy(self)
        other.signed = copy.deepcopy(self.signed)
        for role, signed in other.signed.items():
            signed.version += role != "root"
        return other

    def write(self, folder, edit=lambda _: None, sign=None, spell=None):
        """Everything signed anew, in order. `edit` changes it before, `sign` says who signs a
        role, `spell` changes a role's bytes before what is above it is made."""
        signed = copy.deepcopy(self.signed)
        edit(signed)
        metadata, targets = folder / "metadata", folder / "targets"
        metadata.mkdir(parents=True, exist_ok=True)
        targets.mkdir(exist_ok=True)
        for name, data in {**TARGETS, "revocations.json": REVOCATIONS}.items():
            digest = TargetFile.from_data(name, data, ["sha256"]).hashes["sha256"]
            (targets / f"{digest}.{name}").write_bytes(data)
        skip = getattr(signed["snapshot"], "viw_skip", set())
        for role in ("root", "targets", "releases", "revocation", "snapshot", "timestamp"):
            body = signed[role]
            if role == "snapshot":
                body.meta.update({k: v for k, v in self.meta.items() if k not in body.meta and k not in skip})
            if role == "timestamp" and not getattr(body, "viw_fixed", False):
                body.snapshot_meta = self.meta["snapshot.json"]
            document = Metadata(body)
            for signer in (sign or (lambda role, all: all[role]))(role, self.signers):
                document.sign(signer, append=True)
            data = document.to_bytes(JSONSerializer(compact=True))
            data = spell(role, data) if spell else data
            length, hashes = (len(data), {"sha256": _sha256(data)}) if self.hashes else (None, None)
            self.meta = {**getattr(self, "meta", {}), f"{role}.json": MetaFile(body.version, length, hashes)}
            if role == "root":
                self.meta.pop("root.json")
            name = "timestamp.json" if role == "timestamp" else f"{body.version}.{role}.json"
            (metadata / name).write_bytes(data)
        self.meta = {}
        return folder


def _sha256(data):
    import hashlib

    return hashlib.sha256(data).hexdigest()


def must(verdict, what):
    if verdict is not None:
        sys.exit(f"{what} is refused: {verdict}")


def broken(site):
    """Names of broken repositories, and how each is written."""
    late = NOW - datetime.timedelta(days=1)

    def edited(change):
        return lambda folder: site.next().write(folder, edit=change)

    def by(changed, who):
        return lambda folder: site.next().write(folder, sign=lambda role, all: who(all) if role == changed else all[role])

    for role in ("targets", "releases", "revocation", "snapshot", "timestamp"):
        yield f"{role} expired", edited(lambda s, r=role: setattr(s[r], "expires", late))
        yield f"{role} by nobody", by(role, lambda all: [])
        yield f"{role} by a stranger", by(role, lambda all: [CryptoSigner.generate_ed25519()])
        other = "timestamp" if role == "snapshot" else "snapshot"
        yield f"{role} by {other}'s key", by(role, lambda all, o=other: all[o])
        yield f"{role} goes back", edited(lambda s, r=role: setattr(s[r], "version", 2))
    for role in ("targets", "releases"):
        yield f"{role} below threshold", by(role, lambda all, r=role: all[r][:1])

    def skip(name):
        def change(signed):
            signed["snapshot"].viw_skip = {name}
            signed["snapshot"].meta.pop(name, None)

        return change

    for role in ("targets", "releases", "revocation"):
        yield f"snapshot without {role}", edited(skip(f"{role}.json"))
        meta = MetaFile(9, None, None)
        yield f"snapshot of another {role}", edited(lambda s, r=role, m=meta: s["snapshot"].meta.update({f"{r}.json": m}))

    def other_snapshot(signed):
        signed["timestamp"].snapshot_meta = MetaFile(9, None, None)
        signed["timestamp"].viw_fixed = True

    yield "timestamp of another snapshot", edited(other_snapshot)

    def rotated(version, who):
        def write(folder):
            other = site.next()
            new = [CryptoSigner.generate_ed25519() for _ in range(2)]
            root = copy.deepcopy(site.signed["root"])
            root.version = version
            for signer in site.signers["root"]:
                root.revoke_key(signer.public_key.keyid, "root")
            for signer in new:
                root.add_key(signer.public_key, "root")
            document = Metadata(root)
            for signer in who(site.signers["root"], new):
                document.sign(signer, append=True)
            other.write(folder)
            (folder / "metadata" / "2.root.json").write_bytes(document.to_bytes(JSONSerializer(compact=True)))

        return write

    yield "control: root rotated", rotated(2, lambda old, new: old + new)
    yield "root skips a version", rotated(3, lambda old, new: old + new)
    yield "root by its old keys alone", rotated(2, lambda old, new: old)
    yield "root by its new keys alone", rotated(2, lambda old, new: new)
    yield "root below its old threshold", rotated(2, lambda old, new: old[:1] + new)
    yield "root below its new threshold", rotated(2, lambda old, new: old + new[:1])
    expired = lambda s: setattr(s["root"], "expires", late)  # noqa: E731
    yield "root expired", lambda folder: site.next().write(folder, edit=lambda s: (expired(s), setattr(s["root"], "version", 2)))

    for number in range(150):
        role = RANDOM.choice(["timestamp", "snapshot", "targets", "releases", "revocation"])
        at, by_ = RANDOM.random(), RANDOM.randrange(1, 256)

        def flip(name, data, role=role, at=at, by_=by_):
            if name != role:
                return data
            place = int(at * len(data))
            return data[:place] + bytes([data[place] ^ by_]) + data[place + 1 :]

        # Below the timestamp by whoever holds the online keys, else the digest alone refuses it.
        yield f"byte {number} of {role}", lambda folder, flip=flip: site.next().write(folder, spell=flip)


def main():
    names = list(json.loads(subprocess.check_output([BIN, "repo", "show", OURS, "--output", "json"]))["targets"])
    assert names, "our repository has no targets"
    root = OURS / "metadata" / "1.root.json"
    must(python_reads(OURS, root.read_bytes(), WORK / "py-ours", [*names, "revocations.json"]), "ours, by python-tuf,")

    for hashes in (True, False):
        # Not the first version, so that there is one to go back to.
        site = Site().next().next()
        site.hashes = hashes
        folder = site.write(WORK / f"python-{hashes}")
        root = folder / "metadata" / "1.root.json"
        known, state = WORK / f"known-{hashes}", WORK / f"state-{hashes}.json"
        must(python_reads(folder, root.read_bytes(), known, [*TARGETS, "revocations.json"]), "python-tuf's, by itself,")
        must(ours_reads(folder, root, state), "python-tuf's, by us,")

        # The same memory for both, then one broken version after another.
        counts = {"both": 0, "ours alone": 0, "accepted": 0}
        for number, (what, write) in enumerate(broken(site)):
            case = WORK / f"case-{hashes}-{number}"
            shutil.copytree(folder, case)
            write(case)
            memory, ours = WORK / "memory", WORK / "state.json"
            shutil.rmtree(memory, ignore_errors=True)
            shutil.copytree(known, memory, symlinks=True)
            shutil.copy(state, ours)
            theirs = python_reads(case, root.read_bytes(), memory, [*TARGETS, "revocations.json"])
            mine = ours_reads(case, root, ours)
            if theirs is not None and mine is None:
                sys.exit(f"{what} (seed {SEED}): python-tuf refuses ({theirs}), ours accepts")
            if what.startswith("control") and (theirs or mine):
                sys.exit(f"{what}: refused by {'python-tuf' if theirs else 'ours'}: {theirs or mine}")
            counts["both" if theirs else "ours alone" if mine else "accepted"] += 1
            shutil.rmtree(case)
        print(f"repository: python-tuf and ours, digests {'given' if hashes else 'not given'}: {counts}")
        if counts["both"] < 40:
            sys.exit("too few of the broken repositories are broken")


main()
