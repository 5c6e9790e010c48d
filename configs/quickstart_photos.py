"""The quickstart on a folder of your own photographs: DIR/CLASS/*.jpg, with the embedded mini CLIP.

python launch.py --config configs/quickstart_photos.py --config.data.dir=DIR
"""

from configs import quickstart


def get_config():
    c = quickstart.get_config()
    c.name = "quickstart_photos"
    c.data.source, c.data.dir = "folder", "photographs"
    return c
