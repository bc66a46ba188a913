"""Odd files of the formats that hold pixels: Pascal VOC and folders of masks; and COCO, whose records pass through."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from samif.dataset.formats.voc import colour_codes
from samif.errors import DataError
from tests.support.label_formats import (
    HEIGHT,
    SCENES,
    WIDTH,
    draw_images,
    dump,
    save_mask,
    write_coco,
    write_masks,
    write_voc,
)
from tests.unit.dataset.formats.conftest import Run


class TestVoc:
    @staticmethod
    def values(root: Path, folder: str, name: str = "a1") -> np.ndarray:
        return np.array(Image.open(root / folder / f"{name}.png"))

    @staticmethod
    def put(root: Path, folder: str, values: np.ndarray, name: str = "a1") -> None:
        image = Image.fromarray(values).convert("P")
        image.putpalette([value for code in colour_codes() for value in code.to_bytes(3)])
        image.save(root / folder / f"{name}.png")

    def test_border_belongs_to_no_object(self, run: Run, tmp_path: Path) -> None:
        root = write_voc(tmp_path / "in")
        before = run(root).areas["a1.png"][0]
        for folder in ("SegmentationClass", "SegmentationObject"):
            values = self.values(root, folder)
            values[5:20, 5:8] = 255
            self.put(root, folder, values)
        result = run(root)
        assert 20 < before - result.areas["a1.png"][0] <= 45
        assert result.says("masks with a border (value 255)") == 1

    def test_colour_images_and_a_labelmap_without_colours(self, run: Run, tmp_path: Path) -> None:
        """As Datumaro writes them."""
        root = write_voc(tmp_path / "in")
        same = run(root).done.dataset.digest
        for file in [*root.glob("Segmentation*/*.png")]:
            Image.open(file).convert("RGB").save(file)
        assert run(root).done.dataset.digest == same
        (root / "labelmap.txt").write_text(
            "# label:color_rgb:parts:actions\nbackground:::\nbolt:::\nnut, M8:::\nwasher:::\n"
        )
        assert run(root).done.dataset.digest == same

    def test_names_of_labelme_and_of_voc_itself(self, run: Run, tmp_path: Path) -> None:
        root = write_voc(tmp_path / "in")
        (root / "labelmap.txt").unlink()
        assert set(run(root).labels) == {"aeroplane", "bicycle", "bird"}
        (root / "class_names.txt").write_text("__ignore__\n_background_\nbolt\nnut, M8\nwasher\n")
        assert set(run(root).labels) == {"bolt", "nut, M8", "washer"}

    def test_value_without_a_name(self, run: Run, tmp_path: Path) -> None:
        root = write_voc(tmp_path / "in")
        (root / "labelmap.txt").unlink()
        (root / "class_names.txt").write_text("_background_\nbolt\nnut, M8\n")
        assert run(root).says("has no name") == 1
        assert run(root, default_class="part").labels == {"bolt": 3, "nut, M8": 2, "part": 1}

    def test_classes_alone_are_split_into_parts(self, run: Run, tmp_path: Path) -> None:
        root = write_voc(tmp_path / "in")
        shutil.rmtree(root / "SegmentationObject")
        result = run(root)
        assert result.labels == {"bolt": 3, "nut, M8": 2, "washer": 1}
        assert result.says("each connected part of a class") == 1

    def test_object_without_a_class_and_of_two_classes(self, run: Run, tmp_path: Path) -> None:
        root = write_voc(tmp_path / "in")
        objects, classes = self.values(root, "SegmentationObject"), self.values(root, "SegmentationClass")
        classes[objects == 1] = 0
        classes[30:35, 50:70] = np.where(objects[30:35, 50:70] == 2, 1, classes[30:35, 50:70])
        self.put(root, "SegmentationClass", classes)
        result = run(root)
        assert result.says("object without a class") == 1 and result.says("object of several classes") == 1
        assert len(result.areas["a1.png"]) == 1

    def test_missing_images_masks_and_broken_files(self, run: Run, tmp_path: Path) -> None:
        root = write_voc(tmp_path / "in")
        (root / "JPEGImages" / "a1.png").unlink()
        (root / "SegmentationClass" / "b2.png").write_bytes(b"")
        result = run(root)
        assert set(result.areas) == {"c3.png"}
        assert result.says("has no image file") == 1 and result.says("masks cannot be read") == 1

    def test_boxes_of_xml_files_are_counted(self, run: Run, tmp_path: Path) -> None:
        root = write_voc(tmp_path / "in")
        draw_images(root / "JPEGImages", ("d4.png",))
        box = "<xmin>1</xmin><ymin>1</ymin><xmax>20</xmax><ymax>10</ymax>"
        item = f"<object><name>bolt</name><bndbox>{box}</bndbox></object>"
        size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height></size>"
        (root / "Annotations").mkdir()
        for name, number in (("a1", 3), ("d4", 2)):
            (root / "Annotations" / f"{name}.xml").write_text(f"<annotation>{size}{item * number}</annotation>")
        assert run(root).says("box without an outline") == 3
        assert run(root, boxes="outline").areas["d4.png"] == [200, 200]

    def test_split(self, run: Run, tmp_path: Path) -> None:
        root = write_voc(tmp_path / "in")
        (root / "ImageSets" / "Segmentation").mkdir(parents=True)
        (root / "ImageSets" / "Segmentation" / "val.txt").write_text("a1\r\nc3\r\n")
        assert set(run(root, split="val").areas) == {"a1.png", "c3.png"}
        with pytest.raises(DataError, match=r"train\.txt does not exist"):
            run(root, split="train")

    def test_hole_in_a_mask(self, run: Run, tmp_path: Path) -> None:
        root = write_voc(tmp_path / "in")
        before = run(root).areas["b2.png"][2]
        for folder in ("SegmentationClass", "SegmentationObject"):
            values = self.values(root, folder, "b2")
            values[40:50, 20:30] = 0
            self.put(root, folder, values, "b2")
        assert run(root).areas["b2.png"][2] == before - 100


class TestMaskFolders:
    @staticmethod
    def image(root: Path, name: str = "a1.png") -> np.ndarray:
        draw_images(root / "images", (name,))
        return np.zeros((HEIGHT, WIDTH), dtype=np.uint8)

    def test_one_value_is_split_into_connected_parts(self, run: Run, tmp_path: Path) -> None:
        mask = self.image(tmp_path / "in")
        mask[5:15, 5:15] = mask[30:40, 50:60] = 255
        save_mask(tmp_path / "in" / "masks" / "a1.png", mask)
        result = run(tmp_path / "in")
        assert result.areas["a1.png"] == [100, 100] and result.labels == {"object": 2}
        assert result.says("connected parts, each taken as an object") == 1
        assert result.says("masks whose name holds no class") == 1
        assert run(tmp_path / "in", default_class="hex nut").labels == {"hex nut": 2}

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
    def test_values_are_objects(self, run: Run, tmp_path: Path, dtype: type) -> None:
        mask = self.image(tmp_path / "in").astype(dtype)
        mask[5:15, 5:15], mask[5:15, 15:25], mask[30:40, 50:60] = 1, 2, 7 if dtype is np.uint8 else 700
        save_mask(tmp_path / "in" / "masks" / "a1.png", mask)
        assert run(tmp_path / "in").areas["a1.png"] == [100, 100, 100]

    def test_colours_are_objects(self, run: Run, tmp_path: Path) -> None:
        mask = np.stack([self.image(tmp_path / "in")] * 3, axis=-1)
        mask[5:15, 5:15], mask[5:15, 15:25] = (255, 0, 0), (0, 255, 0)
        save_mask(tmp_path / "in" / "masks" / "bolt" / "a1.png", mask)
        assert run(tmp_path / "in").labels == {"bolt": 2}

    @pytest.mark.parametrize("name", ["a1_mask.png", "a1-mask.png", "a1_label.png", "a1_seg.png"])
    def test_names_with_a_suffix(self, run: Run, tmp_path: Path, name: str) -> None:
        mask = self.image(tmp_path / "in")
        mask[5:15, 5:15] = 1
        save_mask(tmp_path / "in" / "masks" / name, mask)
        assert run(tmp_path / "in").areas == {"a1.png": [100]}

    @pytest.mark.parametrize(
        ("name", "category"),
        [("bolt_1", "bolt"), ("bolt (2)", "bolt"), ("hex nut, M8_3", "hex nut, M8"), ("17", "object"),
         ("mask_4", "object"),
         ("0a1b2c3d4e5f60718293a4b5c6d7e8f9", "object")],
    )  # fmt: skip
    def test_class_in_the_name_of_a_file(self, run: Run, tmp_path: Path, name: str, category: str) -> None:
        mask = self.image(tmp_path / "in")
        mask[5:15, 5:15] = mask[30:40, 50:60] = 255
        save_mask(tmp_path / "in" / "masks" / "a1" / f"{name}.png", mask)
        assert run(tmp_path / "in").labels == {category: 1}

    def test_folder_per_image(self, run: Run, tmp_path: Path) -> None:
        """As in the Data Science Bowl 2018."""
        for name in ("x1", "y2"):
            mask = self.image(tmp_path / "in" / name, f"{name}.png")
            mask[5:15, 5:15] = 255
            save_mask(tmp_path / "in" / name / "masks" / "00ffee.png", mask)
            save_mask(tmp_path / "in" / name / "masks" / "00ffef.png", np.roll(mask, 30, axis=1))
        result = run(tmp_path / "in", default_class="cell")
        assert result.areas == {"x1/images/x1.png": [100, 100], "y2/images/y2.png": [100, 100]}

    def test_missing_images_empty_masks_and_broken_files(self, run: Run, tmp_path: Path) -> None:
        root = write_masks(tmp_path / "in")
        mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
        save_mask(root / "masks" / "bolt" / "c3.png", mask)
        save_mask(root / "masks" / "bolt" / "gone.png", mask)
        (root / "masks" / "washer" / "a1.png").write_bytes(b"no image")
        save_mask(root / "masks" / "nut, M8" / "b2.png", mask[:10])
        result = run(root)
        assert result.labels == {"bolt": 3, "nut, M8": 2, "washer": 1}
        assert result.says("mask without an image; 1 label left out") == 1
        assert result.says("masks cannot be read") == 1
        assert result.says("masks without a pixel of an object") == 1
        assert result.says("of another size than the other masks") == 1

    def test_soft_edges_and_jpeg(self, run: Run, tmp_path: Path) -> None:
        mask = self.image(tmp_path / "in")
        mask[10:40, 10:60] = 255
        soft = np.array(Image.fromarray(mask).resize((4 * WIDTH, 4 * HEIGHT)).resize((WIDTH, HEIGHT)))
        soft[9, 10:60] = np.arange(50) + 40
        save_mask(tmp_path / "in" / "masks" / "bolt" / "a1.png", soft)
        result = run(tmp_path / "in")
        assert result.areas["a1.png"] == [1500] and result.says("soft edges") == 1
        (tmp_path / "in" / "masks" / "bolt" / "a1.png").unlink()
        save_mask(tmp_path / "in" / "masks" / "bolt" / "a1.jpg", mask, quality=60)
        assert run(tmp_path / "in").areas["a1.png"] == [pytest.approx(1500, rel=0.02)]


class TestCoco:
    def test_images_are_found_and_missing_ones_told(self, run: Run, tmp_path: Path) -> None:
        source = write_coco(tmp_path / "in")
        content = json.loads(source.read_text())
        names = ("D:\\line\\a1.png", "/home/x/images/b2.png", "gone.png")
        for record, name in zip(content["images"], names, strict=True):
            record["file_name"] = name
        result = run(dump(source, content))
        assert set(result.areas) == {"a1.png", "b2.png"}
        assert result.says("has no image file; 1 label left out") == 1

    def test_ids_and_other_values_are_left_to_the_reader(self, run: Run, tmp_path: Path) -> None:
        source = write_coco(tmp_path / "in")
        content = json.loads(source.read_text())
        for record in content["categories"]:
            record["id"] += 70
        for number, record in enumerate(content["annotations"]):
            record |= {
                "category_id": record["category_id"] + 70,
                "id": str(500 + number),
                "image_id": str(record["image_id"]),
            }
        content["annotations"][0]["keypoints"] = [1, 2, 2]
        content["annotations"][1]["segmentation"] = []
        result = run(dump(source, content))
        assert [c.id for c in result.done.dataset.categories] == [71, 72, 73]
        assert result.says("key points") == 1 and result.says("no outline") == 1
        assert [a.id for a in result.done.dataset.images[1].annotations] == [502, 503, 504]

    def test_boxes_as_outlines(self, run: Run, tmp_path: Path) -> None:
        source = write_coco(tmp_path / "in")
        content = json.loads(source.read_text())
        content["annotations"][0] |= {"segmentation": [], "bbox": [10, 10, 20, 20]}
        assert run(dump(source, content), boxes="outline").areas["a1.png"][0] == 400

    def test_folder_of_one_file_and_of_several(self, run: Run, tmp_path: Path) -> None:
        source = write_coco(tmp_path / "in")
        assert len(run(source.parent).areas) == len(SCENES)
        (source.parent / "b.json").write_bytes(source.read_bytes())
        with pytest.raises(DataError, match=r"2 COCO instance files \(b.json, instances.json\)"):
            run(source.parent)

    def test_gzip(self, run: Run, tmp_path: Path) -> None:
        source = write_coco(tmp_path / "in")
        packed = source.with_name("instances.json.gz")
        packed.write_bytes(gzip.compress(source.read_bytes()))
        assert len(run(packed).areas) == len(SCENES)
