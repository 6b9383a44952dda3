"""The patient of each image: patterns over paths, and tables as people write them."""

import datetime
import unicodedata
import zipfile

import openpyxl
import pandas as pd
import pytest
from refusals import refused

from cytology.data.sources import patients, spreadsheets
from cytology.data.sources.classes import CLASS_NAMES
from cytology.data.sources.patients import add_patients_from_csv, add_patients_from_pattern, unit_of
from cytology.settings import InputError


def listed(*image_ids):
    table = pd.DataFrame({"image_id": image_ids, "label": [name[0] for name in image_ids]})
    return table.assign(patient="", slide="")


@pytest.mark.parametrize(
    ("pattern", "part"),
    [
        (r"(p\d+", "is not a regular expression: missing )"),
        (r"p\d+_", "has no group: put the part that is the patient in parentheses"),
        (r"(case\d+)", "matches no image path; a path looks like 'B/p1_0.png'"),
    ],
)
def test_a_bad_pattern_is_refused(pattern, part):
    sentence = refused(add_patients_from_pattern, listed("B/p1_0.png", "M/p2_0.png"), pattern)
    assert f"Parameter `patient_pattern` '{pattern}'" in sentence and part in sentence


def test_the_first_capture_group_of_the_pattern_is_the_patient():
    table = listed("B/007-a_0.png", "M/12-b_0.png", "M/other.png")
    found = add_patients_from_pattern(table, r"(?P<field_of_view>\d+)-(\w)")
    assert found["patient"].tolist() == ["007", "12", ""]
    optional = add_patients_from_pattern(listed("B/1_x.png", "M/x.png"), r"(\d+_)?x")
    assert optional["patient"].tolist() == ["1_", ""]
    assert unit_of(r"(?P<field_of_view>\d+)-(\w)") == "field of view"
    assert unit_of(r"(\d+)-(?P<slide>\w)") == unit_of("") == "patient"


@pytest.mark.parametrize(
    ("text", "patients", "slides"),
    [
        ("image,patient\nB/a.png,007\nM/c.png,NA\n", ["007", "", "NA"], ["", "", ""]),
        ("patient;image;slide\n1;B/a.png;s\n1;b.png;\n", ["1", "1", ""], ["s", "", ""]),
        ("image,patient\nB\\a.png,1\nB/a.png,1\nnot here.png,2\n", ["1", "", ""], ["", "", ""]),
        ('image,patient\r\n"B/a.png","Ä, B"\r\n', ["Ä, B", "", ""], ["", "", ""]),
    ],
    ids=["comma", "semicolon", "backslash", "quoted"],
)
def test_patients_are_read_from_a_csv(tmp_path, text, patients, slides):
    path = tmp_path / "patients.csv"
    path.write_text(text, encoding="utf-8")
    found, notes = add_patients_from_csv(listed("B/a.png", "B/b.png", "M/c.png"), path)
    assert found["patient"].tolist() == patients and found["slide"].tolist() == slides
    assert len(notes) == ("not here" in text)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_csv_is_read_as_any_spreadsheet_writes_it(tmp_path, encoding, separator, end):
    path = tmp_path / "Patientinnen.csv"
    rows = ["Image, PATIENT ,Note", 'B/a.png , Müller,"one, or; two"', "z.png,9", ",,", "q.png,8,x"]
    if separator != ",":
        rows = [
            row.replace('"one, or; two"', '"one or two"').replace(",", separator) for row in rows
        ]
    path.write_bytes((end.join(rows) + end).encode(encoding))
    found, notes = add_patients_from_csv(listed("B/a.png", "B/b.png"), path)
    assert found["patient"].tolist() == ["Müller", ""]
    said = "Patientinnen.csv names 2 images that are not among those used, e.g. 'q.png'."
    assert notes == (said,)


@pytest.mark.parametrize("declared", ["", "sep=;\n"])
def test_empty_cells_after_the_last_column_are_ignored(tmp_path, declared):
    path = tmp_path / "patients.csv"
    path.write_text(f"{declared}image;patient\nB/a.png;1;\n;;;\nB/b.png;2;; \n", "utf-8")
    found, _ = add_patients_from_csv(listed("B/a.png", "B/b.png"), path)
    assert found["patient"].tolist() == ["1", "2"]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (
            "file;case\na;1\n",
            "needs the columns image,patient[,slide], each once; it has file, case.",
        ),
        ("image,patient\nB/a.png,1\nB/a.png,2\n", "names 'B/a.png' twice, with different"),
        ("image,patient\nB/a.png,1\nB\\a.png,2\n", "names 'B/a.png' twice, with different"),
        (
            "image,patient\nz.png,1\n",
            "names none of the images; an image is called, for example, 'B/a.png'",
        ),
        ("", "has no column names in its first line"),
        ('image,patient\n"a.png,1\n', "is not a readable CSV: unexpected end of data"),
        (
            "image,patient\na.png,1,2\n",
            "has a cell in row 2 to the right of its 2 named columns",
        ),
        ("image,patient,patient\na.png,1,2\n", "each once; it has image, patient, patient."),
        ("image,patient\na.png,1\0\n", "contains bytes that are not text"),
    ],
)
def test_a_bad_csv_is_refused_with_its_path(tmp_path, text, part):
    path = tmp_path / "patients.csv"
    path.write_text(text, encoding="utf-8")
    sentence = refused(add_patients_from_csv, listed("B/a.png", "M/b.png"), path)
    assert str(path) in sentence and part in sentence


FORMULAS = ["=HYPERLINK(1)", "+1+1", "@SUM(1)", "-cmd", "-", "\uff1d1", "-2+3+cmd|x!A0", "1;=2+5"]


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("column", ["patient", "slide"])
def test_a_patient_or_slide_that_is_a_formula_is_refused_with_its_row(tmp_path, name, column):
    path = tmp_path / "patients.csv"
    row = f'B/b.png,"{name}",1' if column == "patient" else f'B/b.png,1,"{name}"'
    path.write_text(f"image,patient,slide\nB/a.png,-7,1\n,,\n{row}\n", "utf-8")
    assert refused(add_patients_from_csv, listed("B/a.png", "B/b.png"), path) == (
        f"{path}, row 4: the {column} is named {name!r}, which a spreadsheet takes for a formula: "
        "use a name that does not begin with =, +, @ or -, or leave it empty."
    )


@pytest.mark.parametrize("first", ["", "sep=,\n"])
def test_a_very_long_name_is_refused_with_its_row(tmp_path, first):
    path, row = tmp_path / "patients.csv", 4 if first else 3
    path.write_text(f"{first}image,patient\nB/a.png,{'W' * 200}\nB/b.png,{'W' * 100_000}\n")
    assert refused(add_patients_from_csv, listed("B/a.png", "B/b.png"), path) == (
        f"{path}, row {row}: the patient has a name of 100,000 letters, {'W' * 30!r}...: the limit "
        "is 200; perhaps a quotation mark is missing."
    )


def test_a_pattern_that_matches_a_formula_is_refused():
    sentence = refused(add_patients_from_pattern, listed("B/x =1+1_1.png"), "x ([^_]+)_")
    assert sentence.startswith(
        "Parameter `patient_pattern`: the patient in 'B/x =1+1_1.png' is named '=1+1', which"
    )


def test_a_pattern_that_takes_too_long_is_stopped(monkeypatch):
    monkeypatch.setattr(patients, "PATTERN_SECONDS", 1)
    table = listed("B/ok.png", f"B/{'a' * 40}!.png")
    assert refused(add_patients_from_pattern, table, "((a+)+)$") == (
        f"Parameter `patient_pattern` '((a+)+)$' was stopped after 1 seconds, at the path "
        f"'B/{'a' * 40}!.png': write it without a repeat inside a repeat."
    )


@pytest.mark.parametrize("pattern", ["(" * 3000 + ")" * 3000, "(a{99999999999})"])
def test_an_invalid_pattern_is_refused(pattern):
    sentence = refused(add_patients_from_pattern, listed("B/a.png"), pattern)
    assert "is not a regular expression" in sentence


def test_a_csv_that_is_missing_or_not_in_utf8_is_refused(tmp_path):
    path = tmp_path / "patients.csv"
    assert refused(add_patients_from_csv, listed("B/a.png"), path) == (
        f"There is no file {path}: check the parameter `patients_csv`."
    )
    path.write_bytes("image,patient\nB/ä.png,1\n".encode("latin-1"))
    said = refused(add_patients_from_csv, listed("B/a.png"), path)
    assert said.endswith("is not UTF-8 text (line 2): save it as 'CSV UTF-8' or as .xlsx.")


@pytest.mark.parametrize("first", ["sep=;", "SEP=;", '"sep=;"', "sep=;;;", "\ufeffsep=;"])
def test_the_separator_line_of_excel_is_used(tmp_path, first):
    path = tmp_path / "patients.csv"
    path.write_text(f"{first}\nimage;patient\nB/a.png;1,5\n", encoding="utf-8")
    found, notes = add_patients_from_csv(listed("B/a.png"), path)
    assert (found["patient"].tolist(), notes) == (["1,5"], ())


@pytest.fixture
def workbook(tmp_path):
    """Writes rows to the first sheet of a workbook, and others to further sheets."""

    def write(*sheets, name="Patientinnen ü.XLSX"):
        book = openpyxl.Workbook()
        book.remove(book.active)
        for number, rows in enumerate(sheets, start=1):
            sheet = book.create_sheet(f"Blatt {number}")
            for row in rows:
                sheet.append(row)
        book.save(tmp_path / name)
        return tmp_path / name

    return write


def test_patients_are_read_from_a_workbook(workbook):
    rows = [
        ("Image", " PATIENT ", None, "slide", "Note"),
        ("B/a ä.png", "007", None, datetime.date(2024, 1, 2), None),
        ("b.png", 7, None, None, "x"),
        (),
        ("c.png", "Müller ", None, 12.5),
        ("d.png", 8.0),
        ("e.png",),
    ]
    names = [f"B/{name}.png" for name in ("a ä", "b", "c", "d", "e")]
    found, notes = add_patients_from_csv(listed(*names), workbook(rows))
    assert found["patient"].tolist() == ["007", "7", "Müller", "8", ""]
    assert found["slide"].tolist() == ["2024-01-02", "", "12.5", "", ""]
    assert notes == ()


def test_the_first_of_several_sheets_is_read_and_this_is_reported(workbook, capsys):
    first = [("image", "patient"), ("B/a.png", 1)]
    path = workbook(first, [("image", "patient"), ("B/a.png", 2)])
    found, notes = add_patients_from_csv(listed("B/a.png"), path)
    assert found["patient"].tolist() == ["1"]
    said = "NOTE: Patientinnen ü.XLSX has 2 sheets; only the first, 'Blatt 1', is read.\n"
    assert capsys.readouterr().out == said


def test_a_bad_row_of_a_workbook_is_refused_with_its_number(workbook):
    path = workbook([("image", "patient"), (), ("B/a.png", "@SUM(1)")])
    sentence = refused(add_patients_from_csv, listed("B/a.png"), path)
    assert f"{path}, row 3: the patient is named '@SUM(1)'" in sentence
    sentence = refused(add_patients_from_csv, listed("B/a.png"), workbook([]))
    assert sentence.endswith("has no column names in its first line.")


@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_a_broken_workbook_is_refused(workbook, share):
    path = workbook([("image", "patient"), ("B/a.png", 1)])
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    sentence = refused(add_patients_from_csv, listed("B/a.png"), path)
    assert (
        f"`patients_csv`: {path} is not a readable .xlsx file: File is not a zip file." == sentence
    )


def test_a_workbook_without_sheets_or_too_large_is_refused(workbook, monkeypatch):
    path = workbook([("image", "patient"), ("B/a.png", 1)])
    with zipfile.ZipFile(path.with_name("none.xlsx"), "w") as packed:
        packed.writestr("a.txt", "no workbook")
    sentence = refused(add_patients_from_csv, listed("B/a.png"), path.with_name("none.xlsx"))
    assert "is not a readable .xlsx file: " in sentence
    monkeypatch.setattr(spreadsheets, "MOST_WORKBOOK_BYTES", 1000)
    sentence = refused(add_patients_from_csv, listed("B/a.png"), path)
    assert sentence.endswith("is not a readable .xlsx file: it unpacks to more than 1,000 bytes.")


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("other", ["NFC", "NFD"])
def test_a_csv_in_another_unicode_form_matches_the_files_on_disk(tmp_path, form, other):
    text = "image,patient\nB/Björk_1.png, José \nB/Björk_2.png,José\u00a0\n"
    path = tmp_path / "patients.csv"
    path.write_text(unicodedata.normalize(form, text), encoding="utf-8")
    names = [unicodedata.normalize(other, f"B/Björk_{n}.png") for n in (1, 2)]
    found, notes = add_patients_from_csv(listed(*names), path)
    assert (found["patient"].tolist(), notes) == (["José", "José"], ())
    assert found["image_id"].tolist() == names, "as the disk has it"


def test_labels_of_a_csv_that_contradict_the_folders_are_refused(tmp_path):
    path = tmp_path / "patients.csv"
    path.write_text("image,patient,Label\nB/a.png,1,malignant\nM/b.png,2,M\n", "utf-8")
    with pytest.raises(InputError) as error:
        add_patients_from_csv(listed("B/a.png", "M/b.png"), path, names=CLASS_NAMES)
    assert str(error.value) == (
        f"{path} contradicts the folders: its column `label` gives 1 image the other class, the "
        "first is 'B/a.png'. The class is read from the folder: move the images, or remove the "
        "column."
    )


@pytest.mark.parametrize("column", ["label", "Class", "diagnosis"])
@pytest.mark.parametrize("labels", [("benign", "m"), ("0", "1"), ("", "carcinoma")])
def test_ignored_labels_of_a_csv_are_reported(tmp_path, column, labels):
    path = tmp_path / "p.csv"
    rows = f"B/a.png,1,{labels[0]}\nM/b.png,2,{labels[1]}\n"
    path.write_text(f"image,patient,{column}\n{rows}", "utf-8")
    found, notes = add_patients_from_csv(listed("B/a.png", "M/b.png"), path, names=CLASS_NAMES)
    assert found["patient"].tolist() == ["1", "2"]
    assert notes == (
        f"p.csv: the column {column.lower()} is not read; the class of an image is its folder's.",
    )


def test_unmatched_rows_of_a_csv_are_reported(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text("image,patient\n./B/a.png,1\nx.png,2\ngone.png,3\n", "utf-8")
    found, notes = add_patients_from_csv(listed("B/a.png", "B/x.png", "M/x.png"), path)
    assert found["patient"].tolist() == ["1", "", ""]
    assert notes == (
        "p.csv names 'x.png', but several images have this name: write their paths below the "
        "folder (1 such name not used).",
        "p.csv names 1 image that is not among those used, e.g. 'gone.png'.",
    )
    path.write_text("image,patient\nB/a.png,1\n,2\n", "utf-8")
    sentence = refused(add_patients_from_csv, listed("B/a.png"), path)
    assert "has 1 row with a patient but no image, the first for '2'" in sentence
