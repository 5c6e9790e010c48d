"""Packaging of vprompt_jax. Lower bounds are the versions the tests ran with."""

from setuptools import find_packages, setup

setup(
    name="vprompt_jax",
    version="0.1.0",
    description="Visual prompts for a frozen CLIP, in JAX and Flax",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["vprompt_jax", "vprompt_jax.*"]),
    package_data={
        "vprompt_jax": [
            "clip/bpe_merges.txt.gz",
            "data/texts.json",
            "zoo/*.safetensors",
            "zoo/*.json",
        ]
    },
    install_requires=[
        "jax>=0.10.2",  # arrays, gradients, pmap
        "flax>=0.12.8",  # modules (linen)
        "optax>=0.2.8",  # optimisers and schedules
        "orbax-checkpoint>=0.12.8",  # checkpoints of the trained parameters
        "ml_collections>=1.1.0",  # configs and their flags
        "clu>=0.0.12",  # metric writers, parameter overview
        "tensorflow-datasets>=4.9.10",  # public datasets by name, by random access
        "importlib_resources>=6.0",  # tensorflow-datasets imports it without requiring it
        # clu's TensorBoard writer needs both; tensorflow never computes anything here.
        "tensorflow-cpu>=2.20; platform_machine == 'x86_64' and sys_platform == 'linux'",
        "tensorflow>=2.20; platform_machine != 'x86_64' or sys_platform != 'linux'",
        "tensorboard>=2.20",
        "pyarrow>=26.0",  # Parquet files and saved Hugging Face datasets
        "grain>=0.2.18",  # threads that read ahead
        "safetensors>=0.8.0",  # weight files
        "flatbuffers>=25.0",  # jax.export writes and reads with it, and jax does not bring it
        "requests>=2.34",  # downloads of weights; TFDS requires it, too
        "filelock>=4.2",  # one download per host; tokenizers requires it, too
        "tokenizers>=0.23",  # byte-pair encoding with CLIP's merges
        "ftfy>=6.3",  # the text repair CLIP's tokenizer starts with
        "Pillow>=12.0",  # decoding and resizing images
        "psutil>=7.0",  # whether cached activations fit in memory; TFDS requires it, too
        "scikit-learn>=1.9",  # the embedded handwritten digits
        "scipy>=1.17",  # bending glyphs when the mini CLIP is pretrained
        "matplotlib>=3.11",  # figures, and the fonts the mini CLIP learned from
        "tqdm>=4.67",  # the progress line
    ],
    extras_require={
        "cuda": ["jax[cuda12]"],
        "tpu": ["jax[tpu]"],
        "test": [
            "pytest>=9.0",
            "pytest-xdist>=3.8",  # tests on both cores
            "hypothesis>=6.170",  # property tests
            "nbclient>=0.11",  # runs the notebooks
            "ipykernel>=7.4",  # in a kernel of their own
        ],
        "parity": ["torch==2.13.0", "transformers>=5.0", "datasets>=5.2"],
        "notebooks": ["jupyter>=1.1"],  # brings nbclient and ipykernel
    },
)
