"""The table of datasets, one row each: AdaViPro's nine, VTAB, FGVC, CoOp's and some more.

VTAB-1k's counts and slices follow its paper (arXiv 1910.04867) and code. A slice such as
"train[:800]" refers to the order of the records that TFDS prepared, and so is right only for the
version of the dataset in its row.
"""

from vprompt_jax.data.info import DatasetInfo

_VTAB = {"train": "train[:800]", "val": "validation[:200]", "test": "test"}
_OFFICIAL = {"train": "train", "test": "test"}
_WITH_VAL = {"train": "train", "val": "validation", "test": "test"}
_SINGLE = {"train": "train"}
_TEST = {"test": "test"}


def _vtab(first: int, test: str = "test") -> dict[str, str]:
    """VTAB-1k's splits if TFDS has no validation: its 200 images are train's from `first` on."""
    return {"train": "train[:800]", "val": f"train[{first}:{first + 200}]", "test": test}


# fmt: off
CATALOGUE: dict[str, DatasetInfo] = {
    # AdaViPro's nine datasets.
    "cifar10": DatasetInfo(
        "small photographs", 10, "cifar10:3.*.*", _OFFICIAL, (50000, 0, 10000), key="id",
        names="cifar10", texts="cifar", side=32,
        licence="not stated", url="https://www.cs.toronto.edu/~kriz/cifar.html"),
    "cifar100": DatasetInfo(
        "small photographs", 100, "cifar100:3.*.*", _OFFICIAL, (50000, 0, 10000), key="id",
        names="cifar100", texts="cifar", side=32, vtab=_vtab(45000),
        licence="not stated", url="https://www.cs.toronto.edu/~kriz/cifar.html"),
    "dtd": DatasetInfo(
        "describable textures, first of ten folds", 47, "dtd:3.*.*", _WITH_VAL, (1880, 1880, 1880),
        key="file_name", texts="dtd", vtab=_VTAB,
        licence="research only", url="https://www.robots.ox.ac.uk/~vgg/data/dtd/"),
    "food101": DatasetInfo(
        "dishes", 101, "food101:2.*.*", {"train": "train", "test": "validation"},
        (75750, 0, 25250), texts="food101",
        licence="photographs of Foodspotting's users; research",
        url="https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/"),
    "sun397": DatasetInfo(
        "scenes, partition 1; TFDS shrinks them to 120,000 pixels", 397,
        "sun397/standard-part1-120k:4.*.*", _OFFICIAL, (19850, 0, 19850), key="file_name",
        texts="sun397", licence="research only", url="https://vision.princeton.edu/projects/2010/SUN/"),
    "oxford_flowers102": DatasetInfo(
        "flowers; also of FGVC", 102, "oxford_flowers102:2.*.*", _WITH_VAL, (1020, 1020, 6149),
        key="file_name", texts="flowers", vtab=_VTAB,
        licence="not stated", url="https://www.robots.ox.ac.uk/~vgg/data/flowers/102/"),
    "ucf101": DatasetInfo(
        "actions: the middle frame of each video, list 01", 101, "ucf101/ucf101_1:2.*.*", _OFFICIAL,
        (9537, 0, 3783), image="video", names="CamelCase", texts="ucf101",
        licence="not stated", url="https://www.crcv.ucf.edu/data/UCF101.php",
        fetch="TFDS downloads the videos and needs ffmpeg and an unrar program; or extract the "
        "middle frames yourself to train/CLASS and test/CLASS and use config.data.source=folder"),
    "eurosat": DatasetInfo(
        "Sentinel-2 satellite images; test is cut by hash", 10, "eurosat/rgb:2.*.*", _SINGLE,
        (27000, 0, 0), key="filename", texts="eurosat", names="CamelCase", side=64,
        test_fraction=0.3, vtab=_vtab(16200, "train[21600:]"),
        licence="MIT", url="https://github.com/phelber/EuroSAT"),
    "oxford_iiit_pet": DatasetInfo(
        "breeds of cats and dogs", 37, "oxford_iiit_pet:4.*.*", _OFFICIAL, (3680, 0, 3669),
        key="file_name", texts="pets", vtab=_vtab(2944),
        licence="CC BY-SA 4.0", url="https://www.robots.ox.ac.uk/~vgg/data/pets/"),
    # The rest of VTAB.
    "caltech101": DatasetInfo(
        "objects", 102, "caltech101:3.*.*", _OFFICIAL, (3060, 0, 6084),
        texts="caltech101", vtab=_vtab(2754),
        licence="CC BY 4.0", url="https://doi.org/10.22002/D1.20086"),
    "sun397_vtab": DatasetInfo(
        "scenes in VTAB's own split, at full size", 397, "sun397/tfds:4.*.*", _WITH_VAL,
        (76128, 10875, 21750), key="file_name", texts="sun397", vtab=_VTAB,
        licence="research only", url="https://vision.princeton.edu/projects/2010/SUN/"),
    "svhn_cropped": DatasetInfo(
        "house numbers", 10, "svhn_cropped:3.*.*", _OFFICIAL, (73257, 0, 26032), key="id",
        names="svhn", texts="svhn", side=32, vtab=_vtab(65931),
        licence="non-commercial only", url="http://ufldl.stanford.edu/housenumbers/"),
    "patch_camelyon": DatasetInfo(
        "histopathology", 2, "patch_camelyon:2.*.*", _WITH_VAL, (262144, 32768, 32768), key="id",
        names="pcam", texts="pcam", side=96, vtab=_VTAB,
        licence="CC0", url="https://github.com/basveeling/pcam"),
    "resisc45": DatasetInfo(
        "aerial scenes; one split, test cut by hash", 45, "resisc45:3.*.*", _SINGLE, (31500, 0, 0),
        key="filename", texts="resisc45", vtab=_vtab(18900, "train[25200:]"),
        licence="not stated", url="https://gcheng-nwpu.github.io/",
        fetch="download NWPU-RESISC45.rar and unpack it as NWPU-RESISC45 in TFDS's manual folder"),
    "diabetic_retinopathy": DatasetInfo(
        "retina photographs at 300 pixels", 5, "diabetic_retinopathy_detection/btgraham-300:3.*.*",
        _WITH_VAL, (35126, 10906, 42670), key="name", names="retinopathy", texts="retinopathy",
        vtab=_VTAB, licence="rules of the Kaggle competition",
        url="https://www.kaggle.com/c/diabetic-retinopathy-detection",
        fetch="download the competition's files into TFDS's manual folder"),
    "clevr_count": DatasetInfo(
        "rendered scenes: number of objects; test is TFDS's validation", 8, "clevr:3.*.*",
        {"train": "train", "test": "validation"}, (70000, 0, 15000), key="file_name",
        label="clevr_count", names="clevr_count", texts="clevr_count",
        template="This is a photo of {} objects", vtab=_vtab(63000, "validation"),
        licence="CC BY 4.0", url="https://cs.stanford.edu/people/jcjohns/clevr/"),
    "clevr_distance": DatasetInfo(
        "rendered scenes: distance of the nearest object; test is TFDS's validation", 6,
        "clevr:3.*.*", {"train": "train", "test": "validation"}, (70000, 0, 15000),
        key="file_name", label="clevr_distance", names="clevr_distance", texts="clevr_distance",
        template="This is a photo of {} shapes", vtab=_vtab(63000, "validation"),
        licence="CC BY 4.0", url="https://cs.stanford.edu/people/jcjohns/clevr/"),
    "dmlab": DatasetInfo(
        "frames of a game: distance of a reward", 6, "dmlab:2.*.*", _WITH_VAL,
        (65550, 22628, 22735), key="filename", names="dmlab", texts="dmlab", vtab=_VTAB,
        licence="not stated", url="https://github.com/google-research/task_adaptation"),
    "kitti_distance": DatasetInfo(
        "roads: distance of the nearest vehicle", 4, "kitti:3.2.0", _WITH_VAL, (6347, 423, 711),
        key="image/file_name", label="kitti_distance", names="kitti", texts="kitti", template="{}",
        vtab=_VTAB, licence="CC BY-NC-SA 3.0", url="http://www.cvlibs.net/datasets/kitti/"),
    "dsprites_x": DatasetInfo(
        "drawn shapes: horizontal position", 16, "dsprites:2.*.*",
        {"train": "train[:80%]", "val": "train[80%:90%]", "test": "train[90%:]"},
        (589824, 73728, 73728), label="dsprites_x", names="dsprites_x", texts="dsprites_x",
        template="This is a photo of a shape at {} of the width", side=64, scale=255,
        vtab=_vtab(589824, "train[90%:]"),
        licence="Apache-2.0", url="https://github.com/deepmind/dsprites-dataset"),
    "dsprites_orientation": DatasetInfo(
        "drawn shapes: orientation", 16, "dsprites:2.*.*",
        {"train": "train[:80%]", "val": "train[80%:90%]", "test": "train[90%:]"},
        (589824, 73728, 73728), label="dsprites_orientation", names="dsprites_orientation",
        texts="rotation", template="This is a photo of a shape rotated by {}", side=64, scale=255,
        vtab=_vtab(589824, "train[90%:]"),
        licence="Apache-2.0", url="https://github.com/deepmind/dsprites-dataset"),
    "smallnorb_azimuth": DatasetInfo(
        "toys: direction of view", 18, "smallnorb:2.*.*",
        {"train": "train", "val": "test[:50%]", "test": "test[50%:]"}, (24300, 12150, 12150),
        label="label_azimuth", names="smallnorb_azimuth", texts="rotation",
        template="This is a photo of a toy rotated by {}", side=96,
        vtab={"train": "train[:800]", "val": "test[:200]", "test": "test[50%:]"},
        licence="research only", url="https://cs.nyu.edu/~ylclab/data/norb-v1.0-small/"),
    "smallnorb_elevation": DatasetInfo(
        "toys: height of view", 9, "smallnorb:2.*.*",
        {"train": "train", "val": "test[:50%]", "test": "test[50%:]"}, (24300, 12150, 12150),
        label="label_elevation", names="smallnorb_elevation", texts="elevation",
        template="This is a photo of a toy seen from an elevation of {}", side=96,
        vtab={"train": "train[:800]", "val": "test[:200]", "test": "test[50%:]"},
        licence="research only", url="https://cs.nyu.edu/~ylclab/data/norb-v1.0-small/"),
    # The rest of FGVC.
    "caltech_birds2011": DatasetInfo(
        "CUB-200-2011, birds", 200, "caltech_birds2011:0.*.*", _OFFICIAL, (5994, 0, 5794),
        key="image/filename", name_field="label_name", texts="birds",
        licence="non-commercial research", url="https://www.vision.caltech.edu/datasets/cub_200_2011/"),
    "nabirds": DatasetInfo(
        "North American birds", 555, None, {}, None, texts="birds",
        licence="terms on its site", url="https://dl.allaboutbirds.org/nabirds",
        fetch="accept the terms on its site, make a manifest (path, label, split) from images.txt, "
        "image_class_labels.txt, classes.txt and train_test_split.txt, and use "
        "config.data.source=manifest"),
    "stanford_dogs": DatasetInfo(
        "breeds of dogs", 120, "stanford_dogs:0.*.*", _OFFICIAL, (12000, 0, 8580),
        key="image/filename", texts="dogs",
        licence="not stated (images of ImageNet)",
        url="http://vision.stanford.edu/aditya86/ImageNetDogs/"),
    "cars196": DatasetInfo(
        "makes of cars", 196, "cars196:2.*.*", _OFFICIAL, (8144, 0, 8041), key="id", texts="cars",
        licence="non-commercial research", url="https://ai.stanford.edu/~jkrause/cars/car_dataset.html",
        fetch="the files' original address is gone: take a copy you trust. Use Parquet files from "
        "Hugging Face's Hub with config.data.source=huggingface, a list of the images (path, "
        "label, split) with config.data.source=manifest, train/CLASS and test/CLASS with "
        "config.data.source=folder, or cars_train and cars_test with CoOp's "
        "split_zhou_StanfordCars.json as config.data.split_file and config.data.source=folder"),
    # The rest of CoOp's eleven.
    "fgvc_aircraft": DatasetInfo(
        "FGVC-Aircraft at the level of variants", 100, None, {}, (3334, 3333, 3333),
        texts="aircraft", licence="non-commercial research",
        url="https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/",
        fetch="download fgvc-aircraft-2013b.tar.gz, make a manifest (path, label, split) in its "
        "folder data from images_variant_train.txt, images_variant_val.txt and "
        "images_variant_test.txt (a line 'ID NAME' is images/ID.jpg of the class NAME), and use "
        "config.data.source=manifest; or use Parquet files from Hugging Face's Hub with "
        "config.data.source=huggingface and config.data.label=variant, if that is the column"),
    # Test sets of ImageNet's classes.
    "imagenet_v2": DatasetInfo(
        "ImageNet's test set collected anew, matched-frequency", 1000,
        "imagenet_v2/matched-frequency:3.*.*", _TEST, (0, 0, 10000), key="file_name",
        names="imagenet", texts="imagenet",
        licence="MIT", url="https://github.com/modestyachts/ImageNetV2"),
    "imagenet_sketch": DatasetInfo(
        "black and white sketches of ImageNet's classes", 1000, "imagenet_sketch:1.*.*", _TEST,
        (0, 0, 50889), key="file_name", names="imagenet", texts="imagenet",
        licence="MIT", url="https://github.com/HaohanWang/ImageNet-Sketch"),
    "imagenet_a": DatasetInfo(
        "photographs that a ResNet-50 takes for something else, of a fifth of ImageNet's classes",
        200, "imagenet_a:0.*.*", _TEST, (0, 0, 7500), key="file_name", names="imagenet",
        texts="imagenet", licence="MIT", url="https://github.com/hendrycks/natural-adv-examples"),
    "imagenet_r": DatasetInfo(
        "paintings, toys and other renditions of a fifth of ImageNet's classes", 200,
        "imagenet_r:0.2.*", _TEST, (0, 0, 30000), key="file_name", names="imagenet",
        texts="imagenet", licence="not stated",
        url="https://github.com/hendrycks/imagenet-r"),
    # Others.
    "waterbirds": DatasetInfo(
        "birds of CUB before backgrounds of Places", 2, None, {}, (4795, 1199, 5794),
        texts="birds", licence="not stated", url="https://github.com/kohpangwei/group_DRO",
        fetch="download waterbird_complete95_forest2water2, make a manifest (path, label, split) "
        "in it from metadata.csv (img_filename; y: 0 landbird, 1 waterbird; split: 0 train, 1 val, "
        "2 test), and use config.data.source=manifest"),
    "gtsrb": DatasetInfo(
        "German traffic signs", 43, None, {}, (26640, 0, 12630), names="gtsrb", texts="gtsrb",
        licence="not stated", url="https://benchmark.ini.rub.de/gtsrb_dataset.html",
        fetch="download GTSRB-Training_fixed.zip, GTSRB_Final_Test_Images.zip and "
        "GTSRB_Final_Test_GT.zip, arrange the images as train/00000 to train/00042 and "
        "test/00000 to test/00042, and use config.data.source=folder. TFDS's "
        "visual_domain_decathlon/gtsrb has no labels for its test split"),
    "imagenet2012": DatasetInfo(
        "ILSVRC 2012; test is its validation split", 1000, "imagenet2012:5.*.*",
        {"train": "train", "test": "validation"}, (1281167, 0, 50000), key="file_name",
        names="imagenet", texts="imagenet",
        licence="non-commercial research", url="https://image-net.org/",
        fetch="download ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar into TFDS's manual "
        "folder"),
}
# fmt: on


def find(name: str) -> DatasetInfo | None:
    """The row of a dataset; None if this table has none, although TFDS may know the name."""
    return CATALOGUE.get(name)
