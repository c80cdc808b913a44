"""llama.cpp for the tests: loads GGUF files, quantises rows and files, evaluates models.

What it is
  llama.cpp through the package llama-cpp-python, which scripts/test-peers.sh builds, and its ggml libraries through ctypes.
  LlamaTest is a PeerTest that is skipped, with the reason printed, where the package is missing.

Worked number
  Perplexity = exp(-(sum of ln p(token | those before it)) / tokens). Two tokens with p = 1/2 and 1/8: exp(ln 16 / 2) = 4.
"""

import ctypes
import glob
import os

import gguf
import numpy as np

from peers_support import PeerTest, TEXT, skip_aloud

try:
    import llama_cpp
    MISSING = None
except Exception as error:  # pylint: disable=broad-except
    llama_cpp, MISSING = None, f"llama-cpp-python cannot be loaded: {error}"

WINDOW = 512
LOG = []
Type = gguf.GGMLQuantizationType


if llama_cpp:
    @llama_cpp.llama_log_callback
    def keep_log(_level, text, _data):
        """Takes what llama.cpp would print on stderr."""
        LOG.append(text.decode("utf-8", "replace"))
        del LOG[:-40]

    llama_cpp.llama_log_set(keep_log, ctypes.c_void_p(0))


class LlamaTest(PeerTest):
    def setUp(self):
        if MISSING:
            skip_aloud(self, MISSING)
        super().setUp()


# --- ggml -------------------------------------------------------------------------------------------------------------

def ggml():
    """The library with ggml's quantisers."""
    library = ctypes.CDLL(glob.glob(os.path.join(os.path.dirname(llama_cpp.__file__), "lib", "libggml-base.*"))[0])
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    library.ggml_quantize_chunk.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p] + [ctypes.c_int64] * 3 + [ctypes.c_void_p]
    return library


def quantize_rows(x, kind):
    """Bytes that ggml makes of float32 rows, as uint8[..., bytes a row]."""
    x = np.ascontiguousarray(x, np.float32)
    block, nbytes = gguf.GGML_QUANT_SIZES[kind]
    out = np.zeros((*x.shape[:-1], x.shape[-1] // block * nbytes), np.uint8)
    size = ggml().ggml_quantize_chunk(int(kind), x.ctypes.data, out.ctypes.data, 0, x.size // x.shape[-1], x.shape[-1], None)
    if size != out.nbytes:
        raise AssertionError(f"ggml_quantize_chunk wrote {size} bytes of {out.nbytes}")
    return out


def quantize_file(source, out, file_type, **params):
    """llama.cpp's own llama-quantize. file_type: a gguf.LlamaFileType."""
    p = llama_cpp.llama_model_quantize_default_params()
    p.ftype, p.nthread = int(file_type), 1
    for name, value in params.items():
        setattr(p, name, value)
    if llama_cpp.llama_model_quantize(os.fsencode(source), os.fsencode(out), ctypes.byref(p)) != 0:
        raise AssertionError(f"llama.cpp cannot quantise {source} to {file_type!r}: {''.join(LOG)[-600:]}")
    return out


def rows_of(tensor):
    """float32 rows of a tensor of gguf.GGUFReader that is F32, F16 or BF16."""
    if tensor.tensor_type == Type.BF16:
        return gguf.quants.dequantize(tensor.data, Type.BF16)
    return np.asarray(tensor.data, np.float32)


# --- evaluation -------------------------------------------------------------------------------------------------------

def nats_of(scores, parts):
    """Mean of -ln p over the scored tokens."""
    return -np.concatenate([x[np.arange(len(x)), ids[1 + first:]] for x, (ids, first) in zip(scores, parts)]).mean()


def divergence(scores, others):
    """Mean over the scored tokens of KL(p || q) in nats, which has less luck in it than a difference of perplexities."""
    return np.concatenate([(np.exp(x) * (x - y)).sum(axis=1) for x, y in zip(scores, others)]).mean()


class Model:
    """A loaded model. Keys and values are kept in F32, so that only the weights differ between formats."""

    def __init__(self, path):
        self.llama = llama_cpp.Llama(str(path), n_ctx=WINDOW, n_batch=WINDOW, logits_all=True, n_threads=1, n_threads_batch=1, type_k=0, type_v=0, verbose=False)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.llama.close()

    def log_probabilities(self, ids):
        """[len(ids), vocabulary]: of the token after each."""
        self.llama.reset()
        self.llama.eval(list(ids))
        x = np.array(self.llama.scores[:len(ids)], np.float64)
        x -= x.max(axis=1, keepdims=True)
        return x - np.log(np.exp(x).sum(axis=1, keepdims=True))

    def scores(self, parts):
        """Of each of the parts (ids, first position that is scored): log probabilities [scored tokens, vocabulary]."""
        return [self.log_probabilities(ids[:-1])[first:] for ids, first in parts]

    def nats(self, parts):
        return nats_of(self.scores(parts), parts)

    def greedy(self, ids, n):
        """The n likeliest tokens after ids."""
        self.llama.reset()
        found, ids = [], list(ids)
        while len(found) < n:
            self.llama.eval(ids)
            found.append(int(np.argmax(self.llama.scores[self.llama.n_tokens - 1])))
            ids = found[-1:]
        return found


def byte_windows(ids_of):
    """Parts of tests/data/tiny-text.txt: each document alone behind <s>; windows after the first score their last half."""
    with open(TEXT, encoding="ascii") as f:
        documents = f.read().strip().split("\n\n")
    for document in documents:
        ids, done = np.array(ids_of(document)), 0
        while done < len(ids) - 1:
            begin = 0 if done == 0 else done - WINDOW // 2
            part = ids[begin:begin + WINDOW + 1]
            yield part, done - begin
            done = begin + len(part) - 1
