"""The labeling configuration read as an ontology, next to how the SDK reads it."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from label_studio_sdk.label_interface import LabelInterface
from label_studio_sdk.label_interface.control_tags import _TAG_TO_CLASS

from connector.adapters.contract import LabelingToolContract
from connector.adapters.label_studio import ontology as label_studio_config
from connector.adapters.label_studio.ontology import MAX_DEPTH, RELATIONS, parse_config
from connector.adapters.memory import MemoryTool, ToolProject
from connector.errors import UsageError
from connector.model import Condition, Control, Label
from connector.regions import KINDS, NOT_MEASURED, Kind, kind_of
from connector.sync.ontology import push
from tests.configs import CONFIGS, MORE


def asking(tag: str, attributes: str = "", inside: str = "") -> str:
    text = '<Text name="text" value="$text"/>'
    return f'<View>{text}<{tag} name="answer" toName="text" {attributes}>{inside}</{tag}></View>'


def read(tag: str, attributes: str = "", inside: str = "") -> Control:
    """The one control of a configuration."""
    (control,) = parse_config(asking(tag, attributes, inside)).controls
    return control


YES_NO = '<Choice value="yes"/><Choice value="no"/>'
ODD: dict[str, str] = {
    "an alias twice": asking("Choices", "", '<Choice value="Yes" alias="y"/><Choice value="y"/>'),
    "a choice without a value": asking("Choices", "", '<Choice/><Choice value="a"/><Choice value=""/>'),
    "labels in views": asking("Labels", "", f"<View><View>{YES_NO}</View></View>"),
    "names in the language of the annotators": (
        '<View><Text name="satz 文" value="$文"/><Choices name="größe 🎈" toName="satz 文">'
        '<Choice value="weiß &amp; &lt;klein&gt;"/></Choices></View>'
    ),
    "required": asking("Choices", 'required="true"', YES_NO),
    "required in capitals": asking("TextArea", 'required="TRUE"'),
    "several": asking("Choices", 'choice="multiple"', YES_NO),
    "labels from the data": asking("Labels", 'value="$labels"'),
    "a tree from the data": asking("Taxonomy", 'value="$tree"'),
    "a tree from an address": asking("Taxonomy", 'apiUrl="https://tree.example"'),
    "of regions with a label": asking("Choices", 'perRegion="true" whenLabelValue="cat"', YES_NO),
    "of regions named by a tag": asking("Choices", 'perRegion="true" whenTagName="label"', YES_NO),
    "of regions with a choice": asking("Choices", 'perRegion="true" whenChoiceValue="yes,no"', YES_NO),
    "of several texts": (
        '<View><Text name="a" value="$a"/><Text name="b" value="$b"/>'
        f'<Choices name="answer" toName="a,b">{YES_NO}</Choices></View>'
    ),
    "a list of pictures": '<View><Image name="x" valueList="$xs"/><Rating name="r" toName="x"/></View>',
    "a text that is not from the data": '<View><Header name="title" value="Hello"/></View>',
    "objects that are a question": '<View><ReactCode name="a" data="$b"/><Chat name="c" value="$d"/></View>',
    "a shortcut and a filter": (
        '<View><Text name="t" value="$t"/><Filter name="f" toName="answer"/>'
        '<TextArea name="answer" toName="t"><Shortcut value="etc." alias="e"/></TextArea></View>'
    ),
}
"""More to read, of which the SDK tells something too."""

ALL = {**CONFIGS, **MORE, **ODD}


def test_every_tag_that_the_sdk_knows_has_a_configuration_and_a_kind_or_a_reason_why_not() -> None:
    assert sorted(tag.lower() for tag in CONFIGS) == sorted(_TAG_TO_CLASS)
    assert set(_TAG_TO_CLASS) - {"labels"} == {*KINDS, *NOT_MEASURED} - {"htmllabels", "relation"}
    assert not set(KINDS) & set(NOT_MEASURED)


@pytest.mark.parametrize("tag", CONFIGS)
def test_the_control_called_answer_is_of_the_tag_it_stands_for(tag: str) -> None:
    ontology = parse_config(CONFIGS[tag])
    control = ontology.control(RELATIONS if tag == "Relations" else "answer")
    assert control
    assert control.kind == tag.lower()
    assert (kind_of(control, ontology) is Kind.UNMEASURED) == (control.kind in NOT_MEASURED)


def told_by_the_sdk(control: Any) -> list[Any]:
    kind, attributes, when = control.tag.lower(), control.attr, control.conditionals
    multiple = kind == "choices" and attributes.get("choice") == "multiple"
    flags = [control.is_output_required, multiple, attributes.get("perRegion") == "true"]
    asked = when and (when["type"], when["name"])
    dynamic = bool(control.dynamic_value)
    return [control.name, kind, control.to_name, control.labels, flags, dynamic, asked]


def told_by_us(control: Control) -> list[Any]:
    flags = [control.required, control.kind == "choices" and control.multiple, control.per_region]
    asked = None
    for when in control.conditions:
        said = {"tag": when.control, "label": ",".join(when.labels), "choice": ",".join(when.choices)}
        (asked,) = [(what, name) for what, name in said.items() if name]
    dynamic, targets, labels = bool(control.dynamic), list(control.targets), list(control.labels)
    return [control.name, control.kind, targets, labels, flags, dynamic, asked]


@pytest.mark.parametrize("name", ALL)
def test_the_sdk_reads_the_same_controls_and_objects(name: str) -> None:
    ontology, sdk = parse_config(ALL[name]), LabelInterface(ALL[name])
    # Label Studio needs no name for relations; the SDK sees only controls with a name and a target.
    ours = [told_by_us(control) for control in ontology.controls if control.name != RELATIONS]
    assert ours == [told_by_the_sdk(control) for control in sdk.controls]
    objects = {shown.name: (shown.tag.lower(), (shown.value or "").lstrip("$")) for shown in sdk.objects}
    assert ontology.objects == objects
    assert ontology.source == ALL[name]


@pytest.mark.parametrize("name", ALL)
def test_the_case_of_tags_and_attributes_does_not_matter(name: str) -> None:
    root = ElementTree.fromstring(ALL[name])
    for tag in root.iter():
        tag.tag = tag.tag.swapcase()
        tag.attrib = {key.swapcase(): value for key, value in tag.attrib.items()}
    shouted, usual = parse_config(ElementTree.tostring(root, "unicode")), parse_config(ALL[name])
    assert shouted.model_copy(update={"source": usual.source}) == usual


def test_a_label_keeps_its_attributes_and_is_called_by_its_alias() -> None:
    inside = '<Label value="Katze" alias="cat" Background="#F00" hotkey="k"/><Label value="dog" alias=""/>'
    cat = {"value": "Katze", "alias": "cat", "background": "#F00", "hotkey": "k"}
    control = read("Labels", "", inside)
    assert control.labels == ("cat", "dog")
    assert control.options == (
        Label(value="cat", path=("cat",), attributes=cat),
        Label(value="dog", path=("dog",), attributes={"value": "dog", "alias": ""}),
    )


TREE = (
    '<Choice value="animal"><View><Choice value="Katze" alias="cat"><Choice value="old"/></Choice></View>'
    '</Choice><Choice value="plant"><Choice value="old"/></Choice><Choice value="none"/>'
)


@pytest.mark.parametrize("tag", ["Taxonomy", "Choices"])
def test_a_tree_is_read_as_paths_from_its_root_and_each_label_once(tag: str) -> None:
    control = read(tag, 'allowNested="true"', TREE)
    paths = [" > ".join(option.path) for option in control.options]
    assert paths == ["animal", "animal > cat", "animal > cat > old", "plant", "plant > old", "none"]
    assert control.labels == ("animal", "cat", "old", "plant", "none")


@pytest.mark.parametrize(
    ("attributes", "condition"),
    [
        ("", None),
        ('perRegion="true"', None),
        ('whenTagName="a" whenLabelValue="cat"', None),
        ('visibleWhen="region-selected"', Condition(when="region-selected")),
        (
            'visibleWhen="choice-unselected" whenTagName="a" whenChoiceValue="x,y"',
            Condition(when="choice-unselected", control="a", choices=("x", "y")),
        ),
        (
            'visibleWhen="region-selected" whenTagName="a" whenLabelValue="cat,dog"',
            Condition(when="region-selected", control="a", labels=("cat", "dog")),
        ),
        ('whenChoiceValue="x"', Condition(when="choice-selected", choices=("x",))),
        ('perRegion="true" whenLabelValue="cat"', Condition(when="region-selected", labels=("cat",))),
        (
            'perRegion="true" whenTagName="a" whenRole="user,assistant"',
            Condition(when="region-selected", control="a", roles=("user", "assistant")),
        ),
    ],
)
def test_a_condition_says_what_must_have_been_chosen(attributes: str, condition: Condition | None) -> None:
    assert read("Choices", attributes).conditions == ((condition,) if condition else ())


def test_the_conditions_of_all_views_around_a_control_hold_for_it_and_for_nothing_else() -> None:
    outer = 'visibleWhen="choice-selected" whenTagName="first" whenChoiceValue="yes"'
    inner = 'visibleWhen="region-selected" whenLabelValue="cat"'
    ontology = parse_config(
        f'<View><Text name="t" value="$t"/><Choices name="first" toName="t">{YES_NO}</Choices>'
        f"<View {outer}><View {inner}>"
        '<Rating name="deep" toName="t" visibleWhen="no-region-selected"/></View>'
        '<Rating name="shallow" toName="t"/></View><Rating name="last" toName="t"/></View>'
    )
    chosen = Condition(when="choice-selected", control="first", choices=("yes",))
    cat = Condition(when="region-selected", labels=("cat",))
    none = Condition(when="no-region-selected")
    conditions = {control.name: control.conditions for control in ontology.controls}
    assert conditions == {"first": (), "deep": (chosen, cat, none), "shallow": (chosen,), "last": ()}


@pytest.mark.parametrize(("flag", "attribute"), [("{{idx}}", ""), ("[i]", 'indexFlag="[i]"')])
def test_a_repeated_control_is_found_by_its_number_with_the_object_of_that_number(
    flag: str, attribute: str
) -> None:
    ontology = parse_config(
        f'<View><Repeater on="$pages" {attribute}><Image name="page_{flag}" value="$pages[{flag}].url"/>'
        f'<RectangleLabels name="box_{flag}_of" toName="page_{flag}"><Label value="cat"/></RectangleLabels>'
        '</Repeater><Rating name="whole" toName="page_0"/></View>'
    )
    found = ontology.control("box_12_of")
    assert found
    assert (found.name, found.target, found.targets) == ("box_12_of", "page_12", ("page_12",))
    assert found.labels == ("cat",)
    assert ontology.object("page_12") == ("image", f"pages[{flag}].url")
    for name in ("box__of", "box_x_of", "box_1", "box_1_of_", "box_-1_of", "whole_1"):
        assert ontology.control(name) is None
    assert ontology.object("page_x") is None


@pytest.mark.parametrize(
    ("tag", "attributes", "dynamic"),
    [
        ("Choices", 'value="$options"', "options"),
        ("RectangleLabels", 'value="$labels"', "labels"),
        ("Taxonomy", 'value="$tree"', "tree"),
        ("Taxonomy", 'apiUrl="https://tree.example/all"', "https://tree.example/all"),
        ("Choices", 'value="options"', ""),
        ("TextArea", 'value="$text"', ""),
    ],
)
def test_labels_may_come_from_the_data_or_an_address(tag: str, attributes: str, dynamic: str) -> None:
    assert read(tag, attributes).dynamic == dynamic


@pytest.mark.parametrize(
    ("tag", "attributes", "multiple"),
    [
        ("Choices", 'choice="single-radio"', False),
        ("Choices", 'choice="multiple"', True),
        ("RectangleLabels", 'choice="multiple"', True),
        ("Taxonomy", "", True),
        ("Taxonomy", 'maxUsages="1"', False),
        ("TextArea", "", True),
        ("TextArea", 'maxSubmissions="1"', False),
        ("Relations", "", True),
        ("Relations", 'choice="single"', False),
        ("Rating", 'choice="multiple"', False),
    ],
)
def test_several_answers_are_allowed_where_the_tag_says_so(tag: str, attributes: str, multiple: bool) -> None:
    assert read(tag, attributes).multiple is multiple


def test_flags_and_bounds_are_kept_and_looks_are_not() -> None:
    control = read("Rating", 'perItem="true" perRegion="True" required="yes" maxRating="3" size="large"')
    assert (control.per_item, control.per_region, control.required) == (True, True, False)
    assert control.limits == {"maxrating": "3"}


BASE = (
    '<View><Text name="text" value="$text"/>'
    '<Choices name="a" toName="text"><Choice value="x" hotkey="1"/><Choice value="y"/></Choices>'
    '<Rating name="b" toName="text" maxRating="4"/></View>'
)
CHOICES = BASE[BASE.index("<Choices") : BASE.index("<Rating")]


@pytest.mark.parametrize(
    "change",
    [
        ("$text", "$other"),
        ('value="y"', 'value="z"'),
        ('<Choice value="y"/>', '<Choice value="y"/><Choice value="z"/>'),
        ('<Choice value="y"/>', '<Choice value="y" alias="z"/>'),
        ('<Choice value="y"/>', ""),
        ('<Choices name="a"', '<Choices name="a" required="true"'),
        ('<Choices name="a"', '<Choices name="a" choice="multiple"'),
        ('<Choices name="a"', '<Choices name="a" whenChoiceValue="x"'),
        ('name="b"', 'name="c"'),
        ('maxRating="4"', 'maxRating="5"'),
    ],
)
def test_the_version_tells_what_can_be_answered(change: tuple[str, str]) -> None:
    assert parse_config(BASE.replace(*change)).version != parse_config(BASE).version


@pytest.mark.parametrize(
    "change",
    [
        ('hotkey="1"', 'background="red" hint="the first"'),
        ("<View>", '<View style="color: red"><Header value="Answer!"/><!-- soon more -->\n\t'),
        ('name="b"', 'name="b" size="large" icon="heart"'),
        ("</View>", f"{CHOICES}</View>"),
    ],
)
def test_looks_and_order_of_controls_do_not_change_the_version(change: tuple[str, str]) -> None:
    changed = BASE.replace(CHOICES, "") if CHOICES in change[1] else BASE
    assert parse_config(changed.replace(*change)).version == parse_config(BASE).version


ENTITIES = "".join(f'<!ENTITY e{n + 1} "{f"&e{n};" * 10}">' for n in range(20))


@pytest.mark.parametrize(
    ("source", "phrase"),
    [
        ("", "is not XML: no element found"),
        ("<View>", "is not XML: no element found"),
        ("<View></Text>", "is not XML: mismatched tag: line 1"),
        ("<View a='1' a='2'/>", "is not XML: duplicate attribute"),
        ("<View>&secret;</View>", "is not XML: undefined entity"),
        ("<View>\0</View>", "is not XML: not well-formed"),
        ("<View>\ud800</View>", "is not XML: 'utf-8' codec"),
        ('<!DOCTYPE View [<!ENTITY x SYSTEM "file:///etc/hostname">]><View>&x;</View>', "a document type"),
        (f'<!DOCTYPE View [<!ENTITY e0 "ha">{ENTITIES}]><View>&e20;</View>', "declares a document type"),
        ("<View>" * (MAX_DEPTH + 1) + "</View>" * (MAX_DEPTH + 1), f"deeper than {MAX_DEPTH} tags"),
        ("<View>" * 100_000 + "</View>" * 100_000, f"deeper than {MAX_DEPTH} tags"),
    ],
    ids=lambda text: repr(text[:40]),
)
def test_what_is_broken_or_an_attack_is_told(source: str, phrase: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_config(source)
    assert phrase in caught.value.what
    assert caught.value.hint


def test_a_configuration_may_be_as_deep_and_as_large_as_the_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    assert parse_config("<View>" * MAX_DEPTH + "</View>" * MAX_DEPTH).controls == ()
    monkeypatch.setattr(label_studio_config, "MAX_CHARACTERS", len(BASE))
    assert len(parse_config(BASE).controls) == 2
    with pytest.raises(UsageError, match=f"has {len(BASE) + 1} characters, more than {len(BASE)}"):
        parse_config(BASE + " ")


CHARACTERS = st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff")
NAMES = st.text(CHARACTERS.filter(lambda character: character != ","), min_size=1)


@settings(deadline=None)
@given(name=NAMES, target=NAMES, labels=st.lists(st.text(CHARACTERS, min_size=1), unique=True, max_size=5))
def test_whatever_things_are_called_they_are_called_so_in_the_ontology(
    name: str, target: str, labels: list[str]
) -> None:
    inside = "".join(f"<Label value={quoteattr(label)}/>" for label in labels)
    ontology = parse_config(
        f'<View><Text name={quoteattr(target)} value="$text"/>'
        f"<Labels name={quoteattr(name)} toName={quoteattr(target)}>{inside}</Labels></View>"
    )
    control = ontology.control(name)
    assert control
    assert (control.name, control.target, control.labels) == (name, target, tuple(labels))
    assert ontology.object(target) == ("text", "text")


CAT_DOG = (
    '<View><Image name="image" value="$image"/><Choices name="animal" toName="image">'
    '<Choice value="cat"/><Choice value="dog"/></Choices><Taxonomy name="kind" toName="image">'
    '<Choice value="plant"><Choice value="tree"/></Choice></Taxonomy></View>'
)


@pytest.mark.parametrize("how", ["answered", "skipped", "unreadable", "in a tree"])
def test_a_label_that_an_annotation_in_the_tool_uses_is_kept(how: str) -> None:
    contract, tool = LabelingToolContract(), MemoryTool(ToolProject(ontology=parse_config(CAT_DOG)))
    [task] = contract.add(tool, "a")
    broken = [{"type": "choices", "from_name": "animal"}] if how == "unreadable" else []
    tree = {**contract.choice("x"), "type": "taxonomy", "from_name": "kind"}
    tree["value"] = {"taxonomy": [["plant", "tree"]]}
    said = [tree] if how == "in a tree" else [contract.choice("dog"), *broken]
    contract.write(tool, task, "ann@example.com", *said, cancelled=how == "skipped")
    gone = '<Choice value="tree"/>' if how == "in a tree" else '<Choice value="dog"/>'
    used = "kind: plant / tree" if how == "in a tree" else "animal: dog"
    with pytest.raises(UsageError, match=rf"{used} \(1\)"):
        push(tool, CAT_DOG.replace(gone, ""), 2)
    assert tool.project.ontology == parse_config(CAT_DOG)
    push(tool, CAT_DOG, 2)
    push(tool, CAT_DOG.replace(gone, ""), 2, force=True)
    assert tool.project.ontology == parse_config(CAT_DOG.replace(gone, ""))


@pytest.mark.parametrize("name", ["", 'name="how"'])
def test_labels_of_relations_are_kept_and_may_be_removed_whatever_their_question_is_called(name: str) -> None:
    """A relation in a result names no question."""
    relations = f'<Relations {name}><Relation value="likes"/><Relation value="fears"/></Relations></View>'
    config = CAT_DOG.replace("</View>", relations)
    contract, tool = LabelingToolContract(), MemoryTool(ToolProject(ontology=parse_config(config)))
    [task] = contract.add(tool, "a")
    link = {"type": "relation", "from_id": "a", "to_id": "b", "direction": "right", "labels": ["likes"]}
    contract.write(tool, task, "ann@example.com", link)
    push(tool, config.replace('<Relation value="fears"/>', ""), 2)
    with pytest.raises(UsageError, match=r"relations: likes \(1\)"):
        push(tool, config.replace('<Relation value="likes"/>', ""), 2)
