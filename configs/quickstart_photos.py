"""The quickstart on a folder of your photographs: photographs/CLASS/*.jpg.

python launch.py --config configs/quickstart_photos.py --config.data.dir=FOLDER
"""

from configs import quickstart


def get_config():
    c = quickstart.get_config()
    c.name = "quickstart_photos"
    c.data.source = "folder"
    c.data.dir = "photographs"
    return c
