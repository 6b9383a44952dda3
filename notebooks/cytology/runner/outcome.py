"""How `run_all.py` ended, for machines: one JSON document on standard output."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from cytology.catalogue import VERIFICATION
from cytology.evaluation.caveats import caveats
from cytology.tables import json_if_there, read_table


@dataclass(frozen=True)
class Outcome:
    """The exit code, the run folder if there is one, and why it was refused if it was.

    `listed` are the notebooks of `--list`.
    """

    code: int
    folder: Path | None = None
    refused: str = ""
    listed: tuple = ()

    def as_json(self) -> str:
        """The document; numbers that are missing are null, since JSON knows no NaN."""
        found = {"exit_code": self.code}
        if self.refused:
            found["refused"] = self.refused
        if self.listed:
            found["notebooks"] = [
                {"name": each.name, "title": each.title, "parameters": each.parameters}
                for each in self.listed
            ]
        if self.folder is not None:
            found["run_dir"] = str(self.folder)
            found |= of_run(self.folder)
        return json.dumps(found, indent=2, ensure_ascii=False)


def of_run(folder: Path) -> dict:
    """What a run folder tells: profile, notebooks, caveats, the comparison, where the report is."""
    record = json_if_there(folder, "run.json")
    kept = ("status", "seconds", "peak_memory_mib", "error")
    found = {
        "profile": record.get("profile"),
        "notebooks": {
            name: {key: entry[key] for key in kept if key in entry}
            for name, entry in record.get("notebooks", {}).items()
        },
        "caveats": [asdict(caveat) for caveat in caveats(folder)],
        "comparison": [],
    }
    if (folder / "tables" / "comparison.csv").is_file():
        table = read_table(folder, "tables/comparison.csv")
        found["comparison"] = json.loads(table.to_json(orient="records"))
    if (folder / "report.html").is_file():
        found["report"] = str(folder / "report.html")
    if verification := json_if_there(folder, VERIFICATION):
        found["verification"] = verification
    return found
