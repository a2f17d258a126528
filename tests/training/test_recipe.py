"""Recipes: what is read, and the one line that says what is wrong."""

import inspect

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pushpull_conv import InputError
from pushpull_conv.augment import AUGMENTATIONS
from pushpull_conv.models.layer_kinds import LAYER_KINDS
from pushpull_conv.training.recipe import Recipe, load_recipe, shipped_recipes
from pushpull_conv.training.variants import AUGMENTS, LAYERS, VARIANTS
from steps import refuses


@pytest.fixture
def content():
    return yaml.safe_load(shipped_recipes()["quickstart"].read_text())


def load(tmp_path, content):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    return load_recipe(str(path))


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_shipped_recipe_loads_and_names_itself(name):
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.variant(recipe.baseline).pushpull is None
    assert f"pushpull run {name}" in shipped_recipes()[name].read_text()


def test_the_resolved_recipe_reads_back_equal(tmp_path):
    recipe = load_recipe("cifar10-resnet20")
    (tmp_path / "resolved.yaml").write_text(recipe.to_yaml())
    assert load_recipe(str(tmp_path / "resolved.yaml")) == recipe


def test_a_variant_may_be_named_or_described(tmp_path, content):
    content["variants"] = ["baseline", {"name": "strong", "pushpull": {"avg_kernel_size": 5, "alpha": 3}}]
    strong = load(tmp_path, content).variant("strong")
    assert strong.pushpull.model_dump() == {"avg_kernel_size": 5, "alpha": 3.0, "trainable_alpha": False}


def test_known_variants_are_what_their_names_say():
    assert VARIANTS["baseline"] is None
    for name in ("PP3", "PP5", "PP3-trainable", "PP5-trainable"):
        assert VARIANTS[name].avg_kernel_size == int(name[2])
    for name in ("PP3", "PP5", "PP2020", "Surround"):
        assert not VARIANTS[name].trainable_alpha
        assert VARIANTS[f"{name}-trainable"] == VARIANTS[name].model_copy(update={"trainable_alpha": True})
    kinds = {name: change.kind for name, change in VARIANTS.items() if hasattr(change, "kind")}
    assert set(kinds.values()) == set(LAYERS) == set(LAYER_KINDS)


@pytest.mark.parametrize("kind", LAYERS)
def test_a_layer_has_the_settings_and_defaults_of_its_function(kind):
    parameters = list(inspect.signature(LAYER_KINDS[kind]).parameters.values())[1:]
    assert LAYERS[kind](kind=kind).model_dump() == {"kind": kind} | {one.name: one.default for one in parameters}


def test_a_layer_may_be_named_or_described_and_reads_back_equal(tmp_path, content):
    content["variants"] = ["baseline", *VARIANTS, {"name": "wide", "layer": {"kind": "surround", "sigma": 1}}][1:]
    recipe = load(tmp_path, content)
    assert [variant.layer or variant.pushpull for variant in recipe.variants[:-1]] == list(VARIANTS.values())
    assert recipe.variant("wide").layer.sigma == 1.0
    (tmp_path / "resolved.yaml").write_text(recipe.to_yaml())
    assert load_recipe(str(tmp_path / "resolved.yaml")) == recipe


def test_a_recipe_stored_before_there_were_layers_means_the_same(tmp_path):
    recipe = load_recipe("cifar10-resnet20")
    stored = yaml.safe_load(recipe.to_yaml())
    for variant in stored["variants"]:
        assert variant.pop("layer") is None
    assert load(tmp_path, stored) == recipe


def test_overrides_replace_single_settings():
    recipe = load_recipe("quickstart", ["training.epochs=3", "variants=[baseline, PP5]", "model.name=resnet32"])
    assert (recipe.training.epochs, recipe.model.name) == (3, "resnet32")
    assert recipe.training.batch_size == load_recipe("quickstart").training.batch_size


def test_a_model_that_cannot_be_built_without_memory_is_accepted():
    assert load_recipe("quickstart", ["model.name=torchvision:regnet_x_400mf"]).model.name.endswith("regnet_x_400mf")


@pytest.mark.parametrize(
    ("section", "key", "value", "words"),
    [
        ("training", "epoch", 3, ["training", "'epoch'", "did you mean 'epochs'"]),
        ("training", "epochs", 0, ["training.epochs", "greater than or equal to 1", "not 0"]),
        ("training", "augmentations", ["flipp"], ["augmentation 'flipp'", "did you mean 'flip'"]),
        ("training", "precision", "fp8", ["training.precision", "bf16-mixed", "'fp8'"]),
        ("model", "name", "resnet21", ["unknown model 'resnet21'", "did you mean 'resnet"]),
        ("data", "name", "cifar", ["data set 'cifar'", "did you mean 'cifar10'"]),
        ("benchmark", "suite", "cifar-c", ["suite 'cifar-c'", "did you mean 'cifar10-c'"]),
        (None, "varaints", [], ["'varaints'", "did you mean 'variants'"]),
        (None, "variants", ["baseline", "PP4"], ["variant 'PP4'", "did you mean 'PP"]),
        (None, "variants", ["PP3", "PP3"], ["PP3", "more than once"]),
        (None, "variants", ["baseline", {"name": "report"}], ["variants.1", "called report", "another name"]),
        (None, "variants", "PP3", ["variants", "is a list", "not 'PP3'"]),
        (None, "data", "digits", ["data: has the keys name, fraction", "not 'digits'"]),
        (None, "variants", [{"name": "a", "pushpull": 3}], ["variants.0.pushpull", "avg_kernel_size", "not 3"]),
        ("training", "weight_decay", float("inf"), ["training.weight_decay", "finite number", "not inf"]),
        (None, "variants", ["PP3"], ["baseline 'baseline'", "PP3"]),
        (None, "variants", [{"name": "even", "pushpull": {"avg_kernel_size": 4}}], ["avg_kernel_size", "4", "odd"]),
        (None, "variants", [{"name": "less", "pushpull": {"avg_kernel_size": -3}}], ["avg_kernel_size", "-3"]),
        (None, "variants", ["baseline", "BlurPol"], ["variant 'BlurPol'", "did you mean 'BlurPool'"]),
        (
            None,
            "variants",
            [{"name": "a", "layer": {"kind": "suround"}}],
            ["variants.0.layer", "layer kind 'suround'", "did you mean 'surround'"],
        ),
        (None, "variants", [{"name": "a", "layer": {"sigma": 1}}], ["variants.0.layer", "no kind", "surround"]),
        (
            None,
            "variants",
            [{"name": "a", "layer": "blurpool"}],
            [
                "variants.0.layer: is a section with a kind, one of upsampled-pull, blurpool",
                "write {kind: blurpool}, not",
            ],
        ),
        (None, "variants", [{"name": "a", "layer": [3]}], ["variants.0.layer", "write {kind: KIND}, not [3]"]),
        (
            None,
            "variants",
            [{"name": "a", "layer": {"kind": "surround", "sigm": 1}}],
            ["recipe key 'sigm'", "did you mean 'sigma'"],
        ),
        (None, "variants", [{"name": "a", "layer": {"kind": "blurpool", "blur_kernel_size": 9}}], ["to 7", "not 9"]),
        (
            None,
            "variants",
            [{"name": "a", "pushpull": {}, "layer": {"kind": "surround"}}],
            ["variant a", "both pushpull and layer"],
        ),
        (
            None,
            "variants",
            [{"name": "a", "pushpull": {"avg_kernel": 3}}],
            ["'avg_kernel'", "mean 'avg_kernel_size'"],
        ),
        (None, "variants", [{"name": "a", "augment": {"policy": "augmx"}}], ["augmentation 'augmx'", "mean 'augmix'"]),
    ],
)
def test_what_is_wrong_is_named_in_one_line(tmp_path, content, section, key, value, words):
    (content[section] if section else content)[key] = value
    with pytest.raises(InputError) as raised:
        load(tmp_path, content)
    message = str(raised.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


@pytest.mark.parametrize("key", ["name", "data", "model", "training", "benchmark", "baseline", "variants"])
def test_a_missing_key_is_named(tmp_path, content, key):
    del content[key]
    with pytest.raises(InputError, match=f"{key}: Field required"):
        load(tmp_path, content)


def test_a_key_that_is_there_twice_is_refused(tmp_path):
    file = tmp_path / "twice.yaml"
    file.write_text("extends: quickstart\ntraining: {epochs: 1}\ntraining: {batch_size: 16}\n")
    with pytest.raises(InputError, match="cannot be read: line 3 has the key 'training' again; write it once"):
        load_recipe(str(file))


def test_a_key_that_is_there_twice_in_a_setting_is_refused():
    with pytest.raises(InputError, match="has the key 'end' again; write it once"):
        load_recipe("quickstart", ["training.learning_rate={start: 0.01, top: 0.1, end: 0.001, end: 0.0001}"])


@pytest.mark.parametrize(
    "setting", ["training.epochs=true", "repeats=yes", "seed=off", "benchmark.every=on", "data.fraction=True"]
)
def test_truth_is_no_number(setting):
    name = setting.partition("=")[0].rpartition(".")[2]
    with pytest.raises(InputError, match=rf"{name} is (True|False), as YAML also reads yes, no, on and off; give a"):
        load_recipe("quickstart", [setting])
    assert load_recipe("quickstart", ["data.greyscale=yes"]).data.greyscale


def test_truth_is_no_number_in_a_list_either():
    layer = "variants=[{name: baseline}, {name: a, layer: {kind: varied-push-pull, avg_kernel_sizes: [3, yes]}}]"
    said = r"avg_kernel_sizes is \[3, True\], as YAML also reads yes, no, on and off; give a number"
    with pytest.raises(InputError, match=said):
        load_recipe("quickstart", [layer])
    assert load_recipe("quickstart", [layer.replace("yes", "5")]).variant("a").layer.avg_kernel_sizes == (3, 5)


def test_a_recipe_extends_one_other(tmp_path):
    (tmp_path / "list.yaml").write_text("extends: [quickstart, cifar10-resnet20]\n")
    with pytest.raises(InputError, match=r"extends \['quickstart', 'cifar10-resnet20'\]; give one recipe, by its name"):
        load_recipe(str(tmp_path / "list.yaml"))


def test_no_variants_are_refused():
    with pytest.raises(InputError, match="variants: is empty; give one or more"):
        load_recipe("quickstart", ["variants=[]"])


def test_a_key_that_is_no_word_is_refused(tmp_path):
    file = tmp_path / "list.yaml"
    file.write_text("extends: quickstart\n? [a, b]\n: 1\n")
    with pytest.raises(InputError, match=r"cannot be read: .*unhashable key"):
        load_recipe(str(file))


def test_a_learning_rate_that_does_not_rise_and_fall_is_refused(tmp_path, content):
    content["training"]["learning_rate"] = {"start": 0.1, "top": 0.01, "end": 0.001}
    with pytest.raises(InputError, match=r"learning_rate: needs end <= start <= top"):
        load(tmp_path, content)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n- b\n", "is not a mapping"),
        ("a: [", "cannot be read"),
        (None, "cannot be read"),
        ("a: 2024-02-30", "day is out"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused(tmp_path, text, message):
    if text is not None:
        (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(InputError, match=message):
        load_recipe(str(tmp_path / "bad.yaml"))


@pytest.mark.parametrize(
    "override",
    ["epochs", "=3", "training.epochs.more=1", "training.=2", ".epochs=2", "name=[", "title.x=1", "title=2024-02-30"],
)
def test_an_override_that_is_no_setting_is_refused(override):
    with pytest.raises(InputError, match="--set"):
        load_recipe("quickstart", [override])


def test_an_unknown_recipe_names_the_nearest():
    with pytest.raises(InputError, match="unknown recipe 'quikstart'; did you mean 'quickstart'"):
        load_recipe("quikstart")


def test_a_file_that_is_given_without_its_ending_is_named(tmp_path):
    for name in ("mine.yaml", "other.yml"):
        (tmp_path / name).write_text("extends: quickstart")
        refuses(load_recipe, rf"did you mean '{tmp_path}/{name}'", str((tmp_path / name).with_suffix("")))
    (tmp_path / "quickstart.yaml").write_text("{extends: quickstart, name: mine}")
    assert load_recipe(str(tmp_path / "quickstart.yaml")).name == "mine"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Not the parent of other tests' folders, whose run it would be."""
    return tmp_path_factory.mktemp("any")


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=3)))
@pytest.mark.parametrize("place", ["variants", "training.learning_rate", "model.name", "title"])
def test_any_value_anywhere_is_accepted_or_refused_in_one_line(folder, place, value):
    content = yaml.safe_load(shipped_recipes()["quickstart"].read_text())
    section, _, key = place.rpartition(".")
    (content[section] if section else content)[key] = value
    try:
        recipe = load(folder, content)
    except InputError as error:
        message = str(error)
    else:
        assert isinstance(recipe, Recipe)
        message = ""
    assert len(message.splitlines()) <= 1


def written(folder, stem, **content):
    path = folder / f"{stem}.yaml"
    path.write_text(yaml.safe_dump(content))
    return str(path)


def test_a_recipe_extends_another_section_by_section(tmp_path):
    written(tmp_path, "middle", extends="cifar10-resnet20", training={"epochs": 3}, variants=["baseline", "PP5"])
    top = written(tmp_path, "top", extends="middle.yaml", name="top", training={"batch_size": 64})
    recipe, base = load_recipe(top, ["seed=7"]), load_recipe("cifar10-resnet20")
    assert (recipe.name, recipe.seed, recipe.title) == ("top", 7, base.title)
    assert recipe.training == base.training.model_copy(update={"epochs": 3, "batch_size": 64})
    assert [variant.name for variant in recipe.variants] == ["baseline", "PP5"]
    (tmp_path / "resolved.yaml").write_text(recipe.to_yaml())
    assert load_recipe(str(tmp_path / "resolved.yaml")) == recipe


def test_a_link_to_a_recipe_finds_what_that_extends(tmp_path):
    (tmp_path / "kept").mkdir()
    written(tmp_path / "kept", "base one", extends="quickstart", seed=5)
    written(tmp_path / "kept", "child", extends="base one.yaml", name="child")
    (tmp_path / "linked.yaml").symlink_to(tmp_path / "kept" / "child.yaml")
    assert load_recipe(str(tmp_path / "linked.yaml")) == load_recipe(str(tmp_path / "kept" / "child.yaml"))
    written(tmp_path, "base one", extends="quickstart", seed=6)
    assert load_recipe(str(tmp_path / "linked.yaml")).seed == 6, "what lies beside the link goes first"


@pytest.mark.parametrize(
    ("extends", "message"),
    [
        ("one.yaml", r"two\.yaml' extends itself by way of .*one\.yaml; end the circle"),
        ("sub/../one.yaml", r"two\.yaml' extends itself by way of .*one\.yaml; end the circle"),
        ("cifar10-resnet21", "'cifar10-resnet21'.*did you mean 'cifar10-resnet20'"),
        ("one", r"^unknown recipe 'one'; did you mean 'one\.yaml'\? A file is given with its ending$"),
        ("a" * 300, "unknown recipe 'aaa"),
        ("absent.yaml", r"absent\.yaml', which '.*two\.yaml' extends, cannot be read"),
    ],
)
def test_what_cannot_be_extended_is_named(tmp_path, extends, message):
    (tmp_path / "sub").mkdir()
    written(tmp_path, "one", extends="two.yaml")
    written(tmp_path, "two", extends=extends)
    with pytest.raises(InputError, match=message):
        load_recipe(str(tmp_path / "two.yaml"))


@pytest.mark.parametrize(
    ("name", "pushpull", "policy", "consistency"),
    [
        ("PP3", (3, 1.0, False), None, None),
        ("PP0-a0.5", (0, 0.5, False), None, None),
        ("PP5-a6", (5, 6.0, False), None, None),
        ("PP5-trainable", (5, 1.0, True), None, None),
        ("AugMix", None, "augmix", 0),
        ("AugMix-JSD", None, "augmix", 12),
        ("AutoAug+PP3", (3, 1.0, False), "autoaugment", 0),
        ("PRIME+PP5-a2", (5, 2.0, False), "prime", 0),
        ("TrivialAug+baseline", None, "trivialaugment", 0),
    ],
)
def test_names_of_variants_say_what_they_are(tmp_path, content, name, pushpull, policy, consistency):
    content |= {"variants": [name], "baseline": name}
    variant = load(tmp_path, content).variant(name)
    assert (variant.pushpull and tuple(variant.pushpull.model_dump().values())) == pushpull
    assert (variant.augment and variant.augment.policy) == policy
    assert (variant.augment and variant.augment.consistency) == consistency


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("AugMixx+PP3", "augmentation 'AugMixx'.*did you mean 'AugMix'"),
        ("AugMix+PP33", "variant 'PP33'.*did you mean 'PP3'"),
        ("PP4-a2", "avg_kernel_size is 4; allowed: 0 or an odd positive number; use 3 or 5"),
    ],
)
def test_names_that_are_none_are_refused(tmp_path, content, name, message):
    with pytest.raises(InputError, match=message):
        load(tmp_path, content | {"variants": [name], "baseline": name})


def test_augmentations_in_recipes_are_those_of_the_package():
    assert {augment.policy for augment in AUGMENTS.values()} == set(AUGMENTATIONS)


@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        ("PP9", "variant 'PP9'"),
        ("taught", "teacher taught of other has a teacher itself; name a variant without"),
        ("other@1235", "teacher other@1235 of other has a teacher itself; name a variant without"),
    ],
)
def test_a_teacher_is_a_variant_that_has_none(tmp_path, content, teacher, message):
    taught = {"name": "taught", "distillation": {"teacher": "baseline"}}
    other = {"name": "other", "distillation": {"teacher": teacher}}
    with pytest.raises(InputError, match=message):
        load(tmp_path, content | {"variants": ["baseline", taught, other], "seed": 1234, "repeats": 2})


def test_a_repeated_student_learns_from_the_teacher_of_its_seed_unless_one_is_named(tmp_path, content):
    students = [
        {"name": "own", "distillation": {"teacher": "baseline"}},
        {"name": "named", "distillation": {"teacher": "baseline@1236"}},
    ]
    recipe = load(tmp_path, content | {"variants": ["baseline", *students], "seed": 1234, "repeats": 3})
    teachers = {training.name: training.distillation.teacher for training in recipe.trainings if training.distillation}
    assert [teachers[f"own{at}"] for at in ("", "@1235", "@1236")] == ["baseline", "baseline@1235", "baseline@1236"]
    assert {teachers[f"named{at}"] for at in ("", "@1235", "@1236")} == {"baseline@1236"}


def test_the_papers_table_and_sweep_are_recipes():
    rows = ["baseline", "PP3", "PP5", *(f"{a}{b}" for a in ("AutoAug", "AugMix", "PRIME") for b in ("", "+PP3"))]
    for data in ("imagenet-resnet50", "imagenet100-resnet50", "imagenet200-resnet18", "cifar10-resnet18"):
        assert [variant.name for variant in load_recipe(data).variants] == rows
    sweep = load_recipe("imagenet100-resnet18-sweep").variants[1:]
    alphas = (0.5, 1, 2, 3, 4, 5, 6)
    settings = {(size, alpha, False) for size in (0, 3, 5) for alpha in alphas} | {(n, 1, True) for n in (0, 3, 5)}
    assert {tuple(variant.pushpull.model_dump().values()) for variant in sweep} == settings


def test_repeats_are_the_variants_again_with_further_seeds(tmp_path):
    recipe = load_recipe("quickstart", ["repeats=3", "seed=7"])
    assert [training.name for training in recipe.trainings] == [
        *("baseline", "PP3"),
        *("baseline@8", "PP3@8"),
        *("baseline@9", "PP3@9"),
    ]
    assert [recipe.seed_of(training) for training in recipe.trainings] == [7, 7, 8, 8, 9, 9]
    with pytest.raises(InputError, match="variant again has the seed 8, as one of its repeats"):
        load_recipe("quickstart", ["repeats=3", "seed=7", "variants=[baseline, {name: again, seed: 8}]"])
    with pytest.raises(InputError, match=r"repeats is 3 from seed 4294967294 on; seeds end at 4294967295"):
        load_recipe("quickstart", ["repeats=3", "seed=4294967294"])
    assert load_recipe("quickstart", ["repeats=2", "seed=4294967294"]).trainings[-1].seed == 4294967295
    assert recipe.variant("PP3@9").pushpull == recipe.variant("PP3").pushpull
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    again = load_recipe(str(tmp_path / "recipe.yaml"))
    assert (again, again.trainings) == (recipe, recipe.trainings)
    with pytest.raises(InputError, match=r"PP3@10.*PP3@8"):
        recipe.variant("PP3@10")
    with pytest.raises(InputError, match=r"variants\.0\.name"):
        load_recipe("quickstart", ["variants=[{name: PP3@8}]"])
