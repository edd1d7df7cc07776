"""Tables of attributes from texts, and the command that writes them."""

import pandas as pd
import pytest
from PIL import Image

from attncap.attributes.tables import load_attributes
from attncap.characteristics import Entry, Lexicon, count_statements, label
from attncap.cli.main import main
from attncap.data.load import load_table

TEXTS = {"a.png": "hat, no beard", "b.png": "beard", "c.png": "a nice day", "d.png": "Hats"}
LEXICON = Lexicon([Entry("hat", "hat", 5), Entry("beard", "beard", 5)])


@pytest.fixture
def images(tmp_path):
    for name in TEXTS:
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    pd.DataFrame({"file": list(TEXTS), "caption": list(TEXTS.values())}).to_csv(tmp_path / "texts.csv", index=False)
    return tmp_path


def test_label(images):
    table = label(load_table(images / "texts.csv", images), LEXICON)
    assert table["file"].tolist() == list(TEXTS)
    assert table["hat"].fillna(-9).tolist() == [1, -9, -9, 1]
    assert table["beard"].fillna(-9).tolist() == [0, 1, -9, -9]
    assert count_statements(table).to_numpy().tolist() == [["hat", 2, 0], ["beard", 1, 1]]


def test_silence_as_no(images):
    table = label(load_table(images / "texts.csv", images), LEXICON, silence="no")
    assert table["beard"].tolist() == [0, 1, 0, 0]


def test_texts_that_disagree_are_unknown(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    frame = pd.DataFrame({"file": ["a.png"] * 3, "caption": ["beard", "no beard", "hat"]})
    table = label(load_table(frame, tmp_path), LEXICON, silence="no")
    assert table["hat"].tolist() == [1]
    assert table["beard"].isna().tolist() == [True]


def test_a_characteristic_named_like_a_column_is_refused(images):
    with pytest.raises(ValueError, match="'Split' has the name of a column"):
        label(load_table(images / "texts.csv", images), Lexicon([Entry("Split", "split")]))


def test_command_writes_a_table_that_attributes_read(images, capsys):
    LEXICON.write(images / "c.csv")
    status = main(
        f"characteristics label --data table:{images}/texts.csv:{images} --characteristics {images}/c.csv "
        f"--out {images}/table.csv".split()
    )
    out, err = capsys.readouterr()
    assert status == 0
    assert "4 images, 2 characteristics" in out
    assert "too rare: hat, beard" in err
    assert "1 images state none" in err
    data = load_attributes(f"attributes:{images}/table.csv:{images}")
    assert data.names == ("hat", "beard")
    assert pd.isna(data.labels).tolist() == [[False, False], [True, False], [True, True], [False, True]]
