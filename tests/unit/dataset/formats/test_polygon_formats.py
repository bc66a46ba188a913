"""Odd files of the formats that hold polygons: YOLO, labelme, VGG VIA, CVAT and Label Studio."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from samif.dataset.formats.label_studio import brush_mask
from samif.errors import DataError
from tests.support.label_formats import (
    HEIGHT,
    SCENES,
    WIDTH,
    cvat,
    cvat_image,
    cvat_mask,
    draw_images,
    dump,
    labelme,
    labelme_mask,
    ls_result,
    ls_task,
    pack,
    via,
    write_yolo,
)
from tests.unit.dataset.formats.conftest import Run

SQUARE = [[10, 10], [30, 10], [30, 30], [10, 30]]
OTHER = [[40, 10], [60, 10], [60, 30], [40, 30]]
AREA = 400


def shape(points: list[list[float]], kind: str | None = "polygon", label: Any = "bolt", **more: Any) -> dict[str, Any]:
    return {"label": label, "points": points, "shape_type": kind, "group_id": None, **more}


def turn(old: Path, new: Path) -> None:
    """The image as a JPEG file with the EXIF tag of a quarter turn clockwise."""
    image = Image.open(old)
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(new, exif=exif)
    old.unlink()


class TestYolo:
    @staticmethod
    def write(root: Path, *lines: str, head: str = "names: [bolt, nut]\ntrain: images\n") -> Path:
        """Two images, of which the first has these lines."""
        draw_images(root / "images", ("a1.png", "b2.png"))
        (root / "labels").mkdir()
        (root / "labels" / "a1.txt").write_text("\n".join(lines) + "\n")
        (root / "data.yaml").write_text(head)
        return root

    GOOD = "0 0.1 0.2 0.4 0.2 0.4 0.6 0.1 0.6"

    @pytest.mark.parametrize(
        ("line", "words"),
        [
            ("1 0.5 0.5 0.2 0.2", "box without an outline"),
            ("1 0.5 0.5 0.2 0.2 0.9", "box without an outline"),
            ("7 0.1 0.2 0.4 0.2 0.4 0.6", "class number 7"),
            ("-1 0.1 0.2 0.4 0.2 0.4 0.6", "class number -1"),
            ("1 0.1 0.2 0.4 0.2 0.4 0.6 0.3", "has a line of 7 coordinates"),
            ("1", "has a line of 0 coordinates"),
            ("bolt 0.1 0.2 0.4 0.2 0.4 0.6", "not a class and coordinates"),
            ("1 0.1 nan 0.4 0.2 0.4 0.6", "not a class and coordinates"),
            ("1 10 20 40 20 40 60", "no shares of the image"),
        ],
    )
    def test_a_line_that_cannot_be_used_is_left_out_and_told(
        self, run: Run, tmp_path: Path, line: str, words: str
    ) -> None:
        result = run(self.write(tmp_path / "in", self.GOOD, line))
        assert result.labels == {"bolt": 1}
        assert result.says(words) == 1
        assert result.left_out == 1

    @pytest.mark.parametrize("line", ["", "   ", "\t", GOOD.replace("0 ", "0.0 ", 1), GOOD + "\t"])
    def test_harmless_lines(self, run: Run, tmp_path: Path, line: str) -> None:
        result = run(self.write(tmp_path / "in", line, self.GOOD.replace("0.1", "0.5").replace("0.4 ", "0.9 ")))
        assert result.left_out == 0
        assert result.labels["bolt"] == 1 + bool(line.strip())

    def test_comments_are_counted(self, run: Run, tmp_path: Path) -> None:
        assert run(self.write(tmp_path / "in", "# bolts", self.GOOD, "# end")).says("comments in label files: 2") == 2

    def test_images_without_a_label_file_stay_as_background(self, run: Run, tmp_path: Path) -> None:
        result = run(self.write(tmp_path / "in", self.GOOD))
        assert set(result.areas) == {"a1.png", "b2.png"} and result.areas["b2.png"] == []
        assert result.says("1 images without a label file") == 1

    def test_empty_label_file_is_an_image_without_objects(self, run: Run, tmp_path: Path) -> None:
        root = self.write(tmp_path / "in", self.GOOD)
        (root / "labels" / "b2.txt").write_text("")
        assert run(root).areas["b2.png"] == []

    def test_label_file_without_an_image_is_told(self, run: Run, tmp_path: Path) -> None:
        root = self.write(tmp_path / "in", self.GOOD)
        (root / "labels" / "gone.txt").write_text(f"{self.GOOD}\n{self.GOOD}\n")
        assert run(root).says("label file without an image; 2 labels left out") == 1

    @pytest.mark.parametrize(
        "head",
        [
            "names:\n  0: bolt\n  1: nut\ntrain: images\n",
            "names:\n  '0': bolt\n  '1': nut\ntrain: ./images/\n",
            "names: [bolt, nut]\nnc: 2\ntrain: ../images\nval:\n",  # as Roboflow writes it
            "path: ../datasets/nowhere\ntrain: images\nnames: [bolt, nut]\n",
            "path: .\ntrain: [images]\nnames: [bolt, nut]\n",
            "train: train.txt\nnames: [bolt, nut]\n",
            "train: .\\images\nnames: [bolt, nut]\n",
            "names: [bolt, nut]\n",
        ],
    )  # fmt: skip
    def test_ways_to_write_data_yaml(self, run: Run, tmp_path: Path, head: str) -> None:
        root = self.write(tmp_path / "in", self.GOOD, head=head)
        (root / "train.txt").write_text("./images/a1.png\nimages\\b2.png\n")
        result = run(root)
        assert result.labels == {"bolt": 1} and set(result.areas) == {"a1.png", "b2.png"}

    @pytest.mark.parametrize("head", ["names: []\n", "names: 7\n", "names: {a: bolt}\n"])
    def test_data_yaml_without_classes_is_refused(self, run: Run, tmp_path: Path, head: str) -> None:
        with pytest.raises(DataError, match="names no classes"):
            run(self.write(tmp_path / "in", self.GOOD, head=head), "yolo")

    def test_folders_without_data_yaml_take_classes_txt(self, run: Run, tmp_path: Path) -> None:
        root = self.write(tmp_path / "in", self.GOOD)
        (root / "data.yaml").unlink()
        (root / "classes.txt").write_text("hex bolt, M8\r\nnut\r\n")
        assert run(root).labels == {"hex bolt, M8": 1}

    def test_labels_and_images_in_folders_of_their_own(self, run: Run, tmp_path: Path) -> None:
        draw_images(tmp_path / "photos", ("a1.png", "b2.png"))
        (tmp_path / "text").mkdir()
        (tmp_path / "text" / "classes.txt").write_text("bolt\n")
        (tmp_path / "text" / "a1.txt").write_text(self.GOOD)
        result = run(tmp_path / "text", images=tmp_path / "photos")
        assert result.labels == {"bolt": 1} and set(result.areas) == {"a1.png", "b2.png"}

    def test_splits_are_joined_or_one_is_taken(self, run: Run, tmp_path: Path) -> None:
        root = write_yolo(tmp_path / "in")
        draw_images(root / "images" / "val", ("d4.png",))
        (root / "labels" / "val").mkdir()
        (root / "labels" / "val" / "d4.txt").write_text(self.GOOD)
        (root / "data.yaml").write_text((root / "data.yaml").read_text() + "val: images/val\n")
        both = run(root)
        assert both.says("splits joined: train, val") and len(both.areas) == 4
        assert set(run(root, split="val").areas) == {"d4.png"}
        with pytest.raises(DataError, match="no split 'tset'; it has train, val"):
            run(root, split="tset")

    def test_key_points_are_no_outlines(self, run: Run, tmp_path: Path) -> None:
        root = self.write(tmp_path / "in", self.GOOD, head="names: [bolt]\ntrain: images\nkpt_shape: [2, 2]\n")
        with pytest.raises(DataError, match="1 times: has key points and a box without an outline"):
            run(root)

    def test_joined_parts_keep_their_area(self, run: Run, tmp_path: Path) -> None:
        """Two squares joined by a line there and back, as Ultralytics writes objects of two parts."""
        points = [*SQUARE, SQUARE[0], *OTHER, OTHER[0], SQUARE[0]]
        row = " ".join(f"{x / WIDTH} {y / HEIGHT}" for x, y in points)
        assert run(self.write(tmp_path / "in", f"0 {row}")).areas["a1.png"] == [pytest.approx(2 * AREA, abs=25)]

    def test_boxes_as_outlines(self, run: Run, tmp_path: Path) -> None:
        result = run(self.write(tmp_path / "in", "1 0.5 0.5 0.25 0.5"), boxes="outline")
        assert result.areas["a1.png"] == [24 * 32] and result.says("box that was taken as outline") == 1


class TestLabelme:
    @staticmethod
    def write(root: Path, *shapes: dict[str, Any], name: str = "a1.png", **more: Any) -> Path:
        draw_images(root, ("a1.png",))
        dump(root / "a1.json", labelme(name, list(shapes)) | more)
        return root

    @pytest.mark.parametrize(
        ("odd", "words"),
        [
            (shape(SQUARE[::2], "rectangle"), "box without an outline"),
            (shape(SQUARE[:1], "point"), "kind 'point'"),
            (shape(SQUARE, "linestrip"), "kind 'linestrip'"),
            (shape(SQUARE[:2], "line"), "kind 'line'"),
            (shape(SQUARE[:2], "star"), "kind 'star'"),
            (shape(SQUARE[:2]), "needs 3 or more"),
            (shape([]), "no outline"),
            (shape([[1, 2], [3, None], [4, 4]]), "polygon without valid points"),
            (shape(SQUARE[:1], "circle"), "circle without valid points"),
            (shape(SQUARE, label=""), "label without a class"),
            (shape(SQUARE, label=None), "label without a class"),
            (shape([[500, 500], [600, 500], [600, 600]]), "outside the image"),
            (shape(SQUARE[::2], "mask", mask="no base64!"), "mask that cannot be decoded"),
            ("a text", "polygon"),
        ],
    )
    def test_a_shape_that_cannot_be_used_is_left_out_and_told(
        self, run: Run, tmp_path: Path, odd: Any, words: str
    ) -> None:
        result = run(self.write(tmp_path / "in", shape(OTHER, label="nut"), odd))
        assert result.labels == {"nut": 1}
        assert result.left_out == 1
        assert result.says(words) == 1 or words == "polygon"

    @pytest.mark.parametrize("name", ["a1.png", ".\\a1.png", "..\\in\\a1.png", "C:\\photos\\a1.png", "../in/a1.png",
                                      "A1.PNG", "", None])  # fmt: skip
    def test_ways_to_name_the_image(self, run: Run, tmp_path: Path, name: Any) -> None:
        assert run(self.write(tmp_path / "in", shape(SQUARE), name=name)).areas == {"a1.png": [AREA]}

    def test_labels_and_images_in_folders_of_their_own(self, run: Run, tmp_path: Path) -> None:
        draw_images(tmp_path / "in" / "images" / "day 1", ("a1.png",))
        dump(tmp_path / "in" / "labels" / "a1.json", labelme("..\\images\\day 1\\a1.png", [shape(SQUARE)]))
        assert run(tmp_path / "in" / "labels").areas == {"a1.png": [AREA]}

    def test_missing_images_and_broken_files_are_counted(self, run: Run, tmp_path: Path) -> None:
        root = self.write(tmp_path / "in", shape(SQUARE))
        dump(root / "b.json", labelme("gone.png", [shape(SQUARE), shape(OTHER)]))
        (root / "c.json").write_text("")
        (root / "d.json").write_text('{"shapes": [')
        dump(root / "e.json", {"some": "settings"})
        result = run(root)
        assert result.areas == {"a1.png": [AREA]}
        assert result.says("has no image file; 2 labels left out") == 1
        assert result.says("label files cannot be read") == 2
        assert result.says("is no labelme file") == 1

    def test_old_files_without_shape_type_and_with_bom(self, run: Run, tmp_path: Path) -> None:
        root = self.write(tmp_path / "in")
        old = labelme("a1.png", [{"label": "bolt", "points": SQUARE}])
        del old["imageWidth"], old["imageHeight"], old["version"]
        (root / "a1.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(old).encode())
        assert run(root).areas == {"a1.png": [AREA]}

    def test_groups_are_one_object(self, run: Run, tmp_path: Path) -> None:
        shapes = [shape(SQUARE, group_id=4), shape(OTHER, group_id=4), shape(OTHER, label="nut", group_id=4)]
        result = run(self.write(tmp_path / "in", *shapes))
        assert result.areas["a1.png"] == [2 * AREA, AREA]
        assert result.says("joined to one object") == 1

    def test_circles_and_masks(self, run: Run, tmp_path: Path) -> None:
        drawn = SCENES["a1.png"][1]
        result = run(self.write(tmp_path / "in", shape([[30, 30], [30, 40]], "circle"), labelme_mask(drawn)))
        circle, mask = result.areas["a1.png"]
        assert circle == pytest.approx(3.1416 * 100, rel=0.03) and mask == drawn.mask.sum()

    def test_labels_of_another_size_are_left_out(self, run: Run, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="labels of another size than the image|labels of 192 x 128"):
            run(self.write(tmp_path / "in", shape(SQUARE), imageWidth=2 * WIDTH, imageHeight=2 * HEIGHT))

    @pytest.mark.parametrize("labels_on", ["upright", "stored"])
    def test_image_that_a_tag_turns(self, run: Run, tmp_path: Path, labels_on: str) -> None:
        """A quarter turn clockwise; the labels declare the size of the file as it is stored."""
        root = self.write(tmp_path / "in", shape(SQUARE))
        turn(root / "a1.png", root / "a1.jpg")
        dump(root / "a1.json", labelme("a1.jpg", [shape(SQUARE)]))
        with pytest.raises(DataError, match="labels-on"):
            run(root)
        (found,) = run(root, labels_on=labels_on).done.dataset.images
        x = 10 if labels_on == "upright" else HEIGHT - 30
        assert (found.width, found.height, found.annotations[0].bbox) == (HEIGHT, WIDTH, (x, 10, 20, 20))

    def test_class_names_are_kept_and_cleaned(self, run: Run, tmp_path: Path) -> None:
        result = run(
            self.write(tmp_path / "in", shape(SQUARE, label=" hex nut, M8\n"), shape(OTHER, label="Mutter größe"))
        )
        assert set(result.labels) == {"hex nut, M8", "Mutter größe"}
        assert result.says("class name was cleaned") == 1


class TestVia:
    @staticmethod
    def region(kind: str = "polygon", attributes: Any = None, **values: Any) -> dict[str, Any]:
        if kind == "polygon" and not values:
            values = {"all_points_x": [p[0] for p in SQUARE], "all_points_y": [p[1] for p in SQUARE]}
        attributes = {"class": "bolt"} if attributes is None else attributes
        return {"shape_attributes": {"name": kind, **values}, "region_attributes": attributes}

    def write(self, root: Path, *regions: Any, **names: list[Any]) -> Path:
        draw_images(root, ("a1.png",))
        return dump(root / "via.json", via({"a1.png": list(regions), **names}))

    @pytest.mark.parametrize(
        ("kind", "values", "words"),
        [
            ("rect", {"x": 1, "y": 2, "width": 9, "height": 9}, "box without an outline"),
            ("point", {"cx": 4, "cy": 4}, "kind 'point'"),
            ("polyline", {"all_points_x": [1, 2, 9], "all_points_y": [1, 9, 2]}, "kind 'polyline'"),
            ("polygon", {"all_points_x": [1, 2, 9], "all_points_y": [1, 9]}, "polygon without valid points"),
            ("polygon", {"all_points_x": [1, 2], "all_points_y": [1, 9]}, "needs 3 or more"),
            ("circle", {"cx": 4, "cy": 4}, "circle without valid numbers"),
            ("ellipse", {"cx": 4, "cy": 4, "rx": "?", "ry": 4}, "ellipse without valid numbers"),
        ],
    )
    def test_a_region_that_cannot_be_used_is_left_out_and_told(
        self, run: Run, tmp_path: Path, kind: str, values: dict[str, Any], words: str
    ) -> None:
        result = run(self.write(tmp_path / "in", self.region(), self.region(kind, **values)))
        assert result.labels == {"bolt": 1} and result.says(words) == 1 and result.left_out == 1

    def test_file_of_version_1_without_settings(self, run: Run, tmp_path: Path) -> None:
        draw_images(tmp_path / "in", ("a1.png",))
        record = {"filename": "a1.png", "size": 9, "fileref": "", "regions": {"0": self.region(), "1": self.region()}}
        assert run(dump(tmp_path / "in" / "v.json", {"a1.png9": record})).labels == {"bolt": 2}

    @pytest.mark.parametrize(
        "attributes", [{"type": "bolt"}, {"Label": "bolt"}, {"class": {"bolt": True, "nut": False}}, {"part": "bolt"},
                       {"name": "bolt", "colour": "red"}, {"colour": "red", "Class": "bolt", "remark": "old"}]
    )  # fmt: skip
    def test_class_attribute_is_found(self, run: Run, tmp_path: Path, attributes: dict[str, Any]) -> None:
        result = run(self.write(tmp_path / "in", self.region(attributes=attributes)))
        assert result.labels == {"bolt": 1}
        assert bool(result.says("not imported: ")) == (len(attributes) > 1)

    def test_class_attribute_that_is_not_clear_is_asked_for(self, run: Run, tmp_path: Path) -> None:
        source = self.write(tmp_path / "in", self.region(attributes={"part": "bolt", "colour": "red"}))
        with pytest.raises(DataError, match="attributes colour, part; name the one"):
            run(source)
        assert run(source, class_key="part").labels == {"bolt": 1}

    def test_regions_without_a_class(self, run: Run, tmp_path: Path) -> None:
        source = self.write(
            tmp_path / "in", self.region(), self.region(attributes={}), self.region(attributes={"class": ""})
        )
        assert run(source).says("label without a class") == 2
        assert run(source, default_class="part").labels == {"bolt": 1, "part": 2}

    def test_region_of_several_classes(self, run: Run, tmp_path: Path) -> None:
        both = {"class": {"bolt": True, "nut": True}}
        assert run(self.write(tmp_path / "in", self.region(attributes=both))).says("several classes") == 1

    def test_turned_ellipse(self, run: Run, tmp_path: Path) -> None:
        ellipse = {"cx": 48, "cy": 32, "rx": 20, "ry": 5, "theta": 1.5708}
        result = run(self.write(tmp_path / "in", self.region("ellipse", **ellipse)))
        _, _, width, height = result.done.dataset.images[0].annotations[0].bbox
        assert height > 35 and width < 14

    def test_missing_images(self, run: Run, tmp_path: Path) -> None:
        source = self.write(tmp_path / "in", self.region(), **{"gone.png": [self.region()], "sub\\x.png": []})
        assert run(source).says("has no image file") == 2


class TestCvat:
    POLYGON = '<polygon label="bolt" points="10.00,10.00;30.00,10.00;30.00,30.00;10.00,30.00"/>'

    def write(self, root: Path, *shapes: str, name: str = "a1.png") -> Path:
        draw_images(root / "images", ("a1.png",))
        return cvat(root / "annotations.xml", cvat_image(name, "".join(shapes)))

    @pytest.mark.parametrize(
        ("odd", "words"),
        [
            ('<box label="nut" xtl="1" ytl="2" xbr="30" ybr="20"/>', "box without an outline"),
            ('<polyline label="nut" points="1,2;30,20"/>', "kind 'polyline'"),
            ('<points label="nut" points="1,2"/>', "kind 'points'"),
            ('<cuboid label="nut" xtl1="1"/>', "kind 'cuboid'"),
            ('<skeleton label="nut"><points label="1" points="1,2"/></skeleton>', "kind 'skeleton'"),
            ('<tag label="nut"/>', "kind 'tag'"),
            ('<polygon label="nut" points="1,2;30"/>', "odd number of coordinates"),
            ('<polygon label="nut" points=""/>', "polygon without valid points"),
            ('<polygon label="nut" points="1,2;a,b;3,4"/>', "polygon without valid points"),
            ('<polygon points="1,2;30,20;4,40"/>', "label without a class"),
            ('<ellipse label="nut" cx="30" cy="20" rx="5"/>', "ellipse without valid numbers"),
            ('<mask label="nut" rle="3, 3" left="0" top="0" width="3" height="3"/>', "do not fit its box"),
            ('<mask label="nut" rle="" left="0" top="0" width="3" height="3"/>', "do not fit its box"),
            ('<mask label="nut" rle="0, 9" left="200" top="0" width="3" height="3"/>', "do not fit its box"),
        ],
    )
    def test_a_shape_that_cannot_be_used_is_left_out_and_told(
        self, run: Run, tmp_path: Path, odd: str, words: str
    ) -> None:
        result = run(self.write(tmp_path / "in", self.POLYGON, odd))
        assert result.labels == {"bolt": 1} and result.says(words) == 1 and result.left_out == 1

    def test_box_in_the_group_of_an_outline_is_no_object(self, run: Run, tmp_path: Path) -> None:
        """As Datumaro writes it."""
        grouped = self.POLYGON.replace("/>", ' group_id="3"/>')
        box = '<box label="bolt" xtl="9" ytl="9" xbr="31" ybr="31" group_id="3"/>'
        for boxes in ("leave-out", "outline"):
            result = run(self.write(tmp_path / boxes, grouped, box), boxes=boxes)
            assert result.areas["a1.png"] == [AREA] and result.left_out == 0

    def test_groups_masks_and_ellipses(self, run: Run, tmp_path: Path) -> None:
        drawn = SCENES["a1.png"][1]
        second = '<polygon label="bolt" points="40,10;60,10;60,30;40,30" group_id="2"/>'
        shapes = [self.POLYGON.replace("/>", ' group_id="2"/>'), second, cvat_mask(drawn)]
        ellipse = '<ellipse label="washer" cx="30" cy="45" rx="10" ry="5" rotation="90"/>'
        result = run(self.write(tmp_path / "in", *shapes, ellipse))
        assert result.areas["a1.png"][:2] == [2 * AREA, drawn.mask.sum()]
        assert result.areas["a1.png"][2] == pytest.approx(3.1416 * 50, rel=0.05)

    @pytest.mark.parametrize("name", ["a1.png", "images/a1.png", "images\\a1.png", "day 1/a1.png", "/home/x/a1.png"])
    def test_ways_to_name_the_image(self, run: Run, tmp_path: Path, name: str) -> None:
        assert run(self.write(tmp_path / "in", self.POLYGON, name=name)).areas == {"a1.png": [AREA]}

    def test_classes_without_a_label_are_kept(self, run: Run, tmp_path: Path) -> None:
        assert run(self.write(tmp_path / "in", self.POLYGON)).done.dataset.category_names == (
            "bolt",
            "nut, M8",
            "washer",
        )

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("", "is empty"),
            ("<annotations><image>", "is not XML"),
            ("<annotations><track/></annotations>", "tracks of a video"),
            ("<annotation><object/></annotation>", "no XML file of CVAT"),
            ("<annotations></annotations>", "no labelled image"),
        ],
    )
    def test_files_that_are_refused(self, run: Run, tmp_path: Path, text: str, words: str) -> None:
        (tmp_path / "a.xml").write_text(text)
        with pytest.raises(DataError, match=words):
            run(tmp_path / "a.xml", "cvat")


class TestLabelStudio:
    @staticmethod
    def polygon(category: str | None = "bolt", points: Any = None, **more: Any) -> dict[str, Any]:
        points = [[100 * x / WIDTH, 100 * y / HEIGHT] for x, y in SQUARE] if points is None else points
        return ls_result("polygonlabels", category, points=points) | more

    @staticmethod
    def write(root: Path, *results: dict[str, Any], image: str = "/data/upload/3/0123abcd-a1.png") -> Path:
        draw_images(root, ("a1.png",))
        return dump(root / "project.json", [ls_task(image, list(results))])

    @pytest.mark.parametrize(
        ("odd", "words"),
        [
            (ls_result("rectanglelabels", "nut", x=1, y=2, width=20, height=20), "box without an outline"),
            (ls_result("keypointlabels", "nut", x=1, y=2, width=1), "kind 'keypointlabels'"),
            (ls_result("choices", None, choices=["blurred"]), "kind 'choices'"),
            (ls_result("textarea", None, text=["a remark"]), "kind 'textarea'"),
            (ls_result("polygonlabels", "nut", points=[[1, 2], [3]]), "polygon without valid points"),
            (ls_result("polygonlabels", "nut", points=[[1, 2], [30, 40]]), "needs 3 or more"),
            (ls_result("polygonlabels", None, points=[[1, 2], [30, 40], [1, 40]]), "label without a class"),
            (ls_result("brushlabels", "nut", format="rle", rle=[1, 2, 3]), "empty or cannot be decoded"),
            (ls_result("brushlabels", "nut", format="rle", rle=[0] * 400), "empty or cannot be decoded"),
            (ls_result("brushlabels", "nut", format="rle", rle=["a"]), "empty or cannot be decoded"),
            (ls_result("ellipselabels", "nut", x=1, y=2), "ellipse without valid numbers"),
            (ls_result("polygonlabels", "nut", points=[[1, 2], [30, 40], [1, 40]]) | {"image_rotation": 90}, "turned"),
        ],
    )
    def test_a_region_that_cannot_be_used_is_left_out_and_told(
        self, run: Run, tmp_path: Path, odd: dict[str, Any], words: str
    ) -> None:
        result = run(self.write(tmp_path / "in", self.polygon(), odd))
        assert result.labels == {"bolt": 1} and result.says(words) == 1 and result.left_out == 1

    @pytest.mark.parametrize(
        "image",
        ["a1.png", "/data/upload/3/0123abcd-a1.png", "/data/local-files/?d=line%201/a1.png", "s3://bucket/line/a1.png",
         "https://example.com/x/a1.png?token=1", "/data/local-files/?d=line\\a1.png"],
    )  # fmt: skip
    def test_ways_to_name_the_image(self, run: Run, tmp_path: Path, image: str) -> None:
        assert run(self.write(tmp_path / "in", self.polygon(), image=image)).areas == {"a1.png": [AREA]}

    def test_image_that_a_tag_turns(self, run: Run, tmp_path: Path) -> None:
        """Per cent are of the upright image, the size is the one of the file as it is stored."""
        points = [[100 * x / HEIGHT, 100 * y / WIDTH] for x, y in SQUARE]
        source = self.write(tmp_path / "in", self.polygon(points=points), image="a1.jpg")
        turn(source.parent / "a1.png", source.parent / "a1.jpg")
        (found,) = run(source).done.dataset.images
        assert (found.width, found.height, found.annotations[0].bbox) == (HEIGHT, WIDTH, (10, 10, 20, 20))

    def test_brush_mask_with_a_hole(self, run: Run, tmp_path: Path) -> None:
        mask = SCENES["c3.png"][0].mask.copy()
        mask[22:34, 34:48] = False
        result = run(self.write(tmp_path / "in", ls_result("brushlabels", "nut", format="rle", rle=pack(mask))))
        assert result.areas["a1.png"] == [mask.sum()]

    def test_class_in_a_result_of_its_own(self, run: Run, tmp_path: Path) -> None:
        shape = ls_result("polygon", None, points=self.polygon()["value"]["points"]) | {"id": "r1"}
        labels = ls_result("labels", "nut") | {"id": "r1"}
        for number, results in enumerate(([shape, labels], [labels, shape])):
            assert run(self.write(tmp_path / str(number), *results)).labels == {"nut": 1}

    def test_one_annotation_of_several_is_taken(self, run: Run, tmp_path: Path) -> None:
        draw_images(tmp_path / "in", ("a1.png", "b2.png"))
        several = ls_task("a1.png", [self.polygon("bolt")], [self.polygon("nut")], [self.polygon("washer")])
        several["annotations"][1]["ground_truth"] = True
        skipped = ls_task("b2.png", [self.polygon()])
        skipped["annotations"][0]["was_cancelled"] = True
        result = run(dump(tmp_path / "in" / "p.json", [several, skipped]))
        assert result.labels == {"nut": 1} and result.areas["b2.png"] == []
        assert result.says("several annotations") == 1 or result.says("has 3 annotations") == 1
        assert result.says("tasks without a submitted annotation") == 1

    def test_missing_images(self, run: Run, tmp_path: Path) -> None:
        draw_images(tmp_path / "in", ("a1.png",))
        tasks = [ls_task("a1.png", [self.polygon()]), ls_task("gone.png", [self.polygon(), self.polygon()])]
        assert run(dump(tmp_path / "in" / "p.json", tasks)).says("has no image file; 2 labels left out") == 1


def test_brush_mask_as_label_studio_packs_it() -> None:
    """A square with a hole in an image of 12 x 8, encoded by label-studio-converter 0.0.59."""
    packed = [
        0, 0, 1, 128, 57, 27, 254, 107, 0, 194, 255, 248, 92, 2, 127, 249, 192, 39, 255, 194, 224, 19, 255, 206, 1, 63,
        254, 23, 0, 194, 255, 249, 172, 0,
    ]  # fmt: skip
    mask = np.zeros((8, 12), dtype=bool)
    mask[2:6, 3:9] = True
    mask[3:5, 5:7] = False
    found = brush_mask(packed, 12, 8)
    assert found is not None and np.array_equal(found, mask)
    for broken in (packed[:-8], packed[:9], [], [*packed[:5], 255, *packed[6:]]):
        damaged = brush_mask(broken, 12, 8)
        assert damaged is None or not np.array_equal(damaged, mask)
    assert brush_mask(packed, 8, 8) is None
