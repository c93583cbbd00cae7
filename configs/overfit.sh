#!/usr/bin/env bash
# Train configs/overfit.py on one synthesised song: configs/overfit.sh PYTHON. `make overfit` calls it.
set -euo pipefail

python=$1
out=build/overfit

rm -rf "$out"
"$python" tokenize/synthesize_songs.py --out "$out/songs" --num-songs 1 --num-validation 0 --num-test 0 --seconds 5
cp -r "$out/songs/train" "$out/songs/validation"
# Without noise on the vocal, which differs between splits, the validation song is the training song, token for token.
"$python" tokenize/extract_tokens.py --songs "$out/songs" --tokenizers hafm_jax/demo --vocal-noise 0 --out "$out/tokens"
"$python" -m hafm_jax.train --config configs/overfit.py --data "$out/tokens" --workdir "$out/coarse"
echo "the band as learnt and as it is: $out/coarse/sounds/generated-0-200.wav and song-0-200.wav"
