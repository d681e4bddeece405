"""Templates: read as AWS reads them, whatever stands in them; and ours please cfn-lint."""

import ipaddress
import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from helpers.cloud.calls import Refusal
from helpers.cloud.stacks.functions import Scope
from helpers.cloud.stacks.parameters import parameters
from helpers.cloud.stacks.template import Template

TEMPLATES = Path(__file__).resolve().parents[1] / "data/templates"
WORDS = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=8)


def template(resources=None, **sections):
    one = {"A": {"Type": "AWS::SNS::Topic"}}
    return Template(json.dumps({"Resources": resources or one, **sections}))


def evaluate(value, values=None, **sections):
    """Evaluate a part of a template, in which the resource A exists."""
    values = {"AWS::Region": "us-east-1", **(values or {})}
    declared = {name: {"Type": "String"} for name in values if "::" not in name}
    resource = lambda name, attribute: f"{name}.{attribute or 'Ref'}"  # noqa: E731
    outside = lambda name, value: [f"{value}{letter}" for letter in "abc"]  # noqa: E731
    found = template(Parameters=declared, **sections)
    return Scope(found, values, resource, outside).evaluate(value)


# --- Reading


def test_short_forms_and_dates():
    text = """
AWSTemplateFormatVersion: 2010-09-09
Parameters: {P: {Type: String}}
Conditions: {C: !Not [!Equals [!Ref P, x]]}
Resources:
  A:
    Type: AWS::SNS::Topic
    Condition: C
    Properties:
      Version: 2012-10-17
      Port: 8080
      Name: !Join ["-", [!Ref P, !GetAtt B.TopicName, !Sub "${B.TopicName}/${!kept}"]]
      If: !If [C, !Select [0, !Split [",", "a,b"]], !Ref "AWS::NoValue"]
      Nested: !Sub ["${x}", {x: !ImportValue y}]
  B: {Type: AWS::SNS::Topic}
"""
    found = Template(text)
    properties = found.resources["A"]["Properties"]
    assert properties["Version"] == "2012-10-17" and properties["Port"] == 8080
    joined = properties["Name"]["Fn::Join"][1]
    assert joined[:2] == [{"Ref": "P"}, {"Fn::GetAtt": ["B", "TopicName"]}]
    assert properties["Nested"] == {"Fn::Sub": ["${x}", {"x": {"Fn::ImportValue": "y"}}]}
    assert found.conditions["C"] == {"Fn::Not": [{"Fn::Equals": [{"Ref": "P"}, "x"]}]}
    assert found.needs == {"A": {"B"}, "B": set()} and found.order() == ["B", "A"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(WORDS, JSON, max_size=4))
def test_yaml_and_json_say_the_same(properties):
    body = {"Resources": {"A": {"Type": "AWS::SNS::Topic", "Properties": properties}}}
    as_json = Template(json.dumps(body)).resources
    as_yaml = Template(yaml.safe_dump(body)).resources
    assert as_json == body["Resources"]
    assert as_yaml == as_json


@given(st.text(max_size=80) | JSON.map(json.dumps) | JSON.map(yaml.safe_dump))
def test_whatever_is_no_template_is_refused(text):
    with pytest.raises((Refusal, NotImplementedError)):
        Template(text)


@pytest.mark.parametrize("name", ["Transform", "Rules"])
def test_what_the_course_does_not_have(name):
    with pytest.raises(NotImplementedError, match=name):
        template(**{name: {"a": 1}})


@pytest.mark.parametrize(
    ("resource", "text"),
    [
        ({}, "Every Resources object must contain a Type member"),
        ({"Type": "AWS::SNS::Topic", "Propertys": {}}, "Invalid template resource property"),
        ({"Type": "AWS::SNS::Topic", "DependsOn": "Z"}, "Unresolved resource dependencies [Z]"),
        ({"Type": "AWS::SNS::Topic", "Condition": "Z"}, "Unresolved condition dependency Z"),
    ],
)
def test_resources_that_cannot_be(resource, text):
    with pytest.raises(Refusal) as problem:
        template({"A": resource})
    assert text in problem.value.message


@given(st.integers(2, 6))
def test_circles_are_found(size):
    ring = {
        f"R{n}": {"Type": "AWS::SNS::Topic", "DependsOn": f"R{(n + 1) % size}"} for n in range(size)
    }
    with pytest.raises(Refusal) as problem:
        template(ring)
    names = ", ".join(sorted(ring))
    assert problem.value.message == f"Circular dependency between resources: [{names}]"


@given(st.data())
def test_the_order_respects_every_need(data):
    size = data.draw(st.integers(1, 7))
    resources = {}
    for n in range(size):
        earlier = st.sampled_from([f"R{m}" for m in range(n)]) if n else st.nothing()
        needs = data.draw(st.lists(earlier, max_size=3)) if n else []
        refs = [{"Ref": name} for name in needs]
        resources[f"R{n}"] = {"Type": "AWS::SNS::Topic", "Properties": {"X": refs}}
    names = data.draw(st.permutations(sorted(resources)))
    found = template({name: resources[name] for name in names})
    order = found.order()
    for name, needs in found.needs.items():
        assert all(order.index(need) < order.index(name) for need in needs)
    assert sorted(order) == sorted(resources)


# --- Functions


@given(WORDS, st.lists(WORDS, min_size=1, max_size=5))
def test_join_and_split_undo_each_other(between, parts):
    between = f"/{between}/"
    joined = evaluate({"Fn::Join": [between, parts]})
    assert joined == between.join(parts)
    assert evaluate({"Fn::Split": [between, joined]}) == parts
    for n, part in enumerate(parts):
        assert evaluate({"Fn::Select": [str(n), {"Fn::Split": [between, joined]}]}) == part


@given(WORDS, WORDS)
def test_sub_is_join(word, other):
    values = {"P": word}
    text = "a ${P} b ${A} c ${A.Arn} d ${x} e ${!P}"
    found = evaluate({"Fn::Sub": [text, {"x": other}]}, values)
    assert found == f"a {word} b A.Ref c A.Arn d {other} e ${{P}}"
    assert evaluate({"Fn::Sub": "${P}"}, values) == evaluate({"Ref": "P"}, values) == word


@given(WORDS, WORDS)
def test_conditions(left, right):
    same = {"Fn::Equals": [{"Ref": "L"}, {"Ref": "R"}]}
    conditions = {
        "Same": same,
        "Other": {"Fn::Not": [{"Condition": "Same"}]},
        "All": {"Fn::And": [{"Condition": "Same"}, {"Condition": "Other"}]},
        "One": {"Fn::Or": [{"Condition": "Same"}, {"Condition": "Other"}]},
    }
    values = {"L": left, "R": right}

    def chosen(name):
        return evaluate({"Fn::If": [name, "yes", "no"]}, values, Conditions=conditions)

    assert chosen("Same") == ("yes" if left == right else "no")
    assert chosen("Other") == ("no" if left == right else "yes")
    assert (chosen("All"), chosen("One")) == ("no", "yes")


def test_what_has_no_value_is_left_out():
    nothing = {"Ref": "AWS::NoValue"}
    assert evaluate({"a": nothing, "b": [1, nothing, 2]}) == {"b": [1, 2]}


@given(st.integers(8, 21), st.integers(1, 8), st.integers(4, 8))
def test_cidr_cuts_blocks_that_fit(length, count, bits):
    block = ipaddress.ip_network(f"10.0.0.0/{length}")
    found = [ipaddress.ip_network(b) for b in evaluate({"Fn::Cidr": [str(block), count, bits]})]
    assert len(found) == count and all(b.prefixlen == 32 - bits for b in found)
    assert all(b.subnet_of(block) for b in found)
    assert not any(a.overlaps(b) for a, b in zip(found, found[1:], strict=False))


def test_maps_zones_and_base64():
    maps = {"Sizes": {"us-east-1": {"web": "t3.micro"}}}
    find = {"Fn::FindInMap": ["Sizes", {"Ref": "AWS::Region"}, "web"]}
    assert evaluate(find, Mappings=maps) == "t3.micro"
    assert evaluate({"Fn::Select": [1, {"Fn::GetAZs": ""}]}) == "us-east-1b"
    assert evaluate({"Fn::Base64": "äh"}) == "w6Ro"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"Fn::Select": [3, ["a"]]}, "Fn::Select cannot select nonexistent value at index 3"),
        ({"Fn::FindInMap": ["No", "a", "b"]}, "Unable to get mapping for No::a::b"),
        ({"Fn::Join": "a"}, "every Fn::Join object"),
        ({"Fn::Cidr": ["10.0.0.0/30", 9, 8]}, "Fn::Cidr"),
    ],
)
def test_arguments_that_do_not_fit(value, text):
    with pytest.raises(Refusal) as problem:
        evaluate(value)
    assert text in problem.value.message


# --- Parameters


def resolve(declared, value):
    found = template(Parameters={"P": declared})
    given_values = {} if value is None else {"P": value}
    return parameters(found, given_values, {}, lambda name: name)[1]["P"]


@given(st.integers(-50, 50), st.integers(-50, 50), st.integers(-50, 50))
def test_numbers_have_bounds(low, high, value):
    declared = {"Type": "Number", "MinValue": low, "MaxValue": high}
    if low <= value <= high:
        assert resolve(declared, str(value)) == str(value)
    else:
        with pytest.raises(Refusal, match="must be a number not"):
            resolve(declared, str(value))


@given(st.text(max_size=6), st.integers(0, 4), st.integers(2, 6))
def test_texts_have_lengths_and_patterns(text, least, most):
    declared = {"Type": "String", "MinLength": least, "MaxLength": most, "AllowedPattern": "[a-z]*"}
    fits = least <= len(text) <= most and re.fullmatch("[a-z]*", text)
    if fits:
        assert resolve(declared, text) == text
    else:
        with pytest.raises(Refusal, match="Parameter 'P' must "):
            resolve(declared, text)


@given(st.lists(WORDS, min_size=1, max_size=4), WORDS)
def test_allowed_values_and_their_description(allowed, value):
    declared = {"Type": "String", "AllowedValues": allowed, "ConstraintDescription": "be nice"}
    if value in allowed:
        assert resolve(declared, value) == value
    else:
        with pytest.raises(Refusal, match="Parameter P failed to satisfy constraint: be nice"):
            resolve(declared, value)


@given(st.lists(st.integers(), min_size=1, max_size=4))
def test_lists(numbers):
    text = ", ".join(map(str, numbers))
    parts = [str(number) for number in numbers]
    assert resolve({"Type": "List<Number>"}, text) == parts
    assert resolve({"Type": "CommaDelimitedList"}, text) == parts
    with pytest.raises(Refusal, match="must be a number"):
        resolve({"Type": "List<Number>"}, text + ",x")


def test_defaults():
    assert resolve({"Type": "Number", "Default": 3}, None) == "3"
    with pytest.raises(Refusal, match="must have values"):
        resolve({"Type": "String"}, None)
    with pytest.raises(Refusal, match="Unrecognized parameter type: Text"):
        template(Parameters={"P": {"Type": "Text"}})


# --- Our own


@pytest.mark.parametrize("path", sorted(TEMPLATES.glob("*.yaml")), ids=lambda path: path.name)
def test_cfn_lint(path):
    done = subprocess.run(["cfn-lint", str(path)], capture_output=True, text=True)
    faults = {"broken.yaml": ["E1020", "E3002", "E3030"], "broken-server.yaml": ["E1010"]}
    faults["broken-pipeline.yaml"] = ["E3701"]
    if path.name in faults:  # each has three; those that can be are found
        assert sorted(re.findall(r"^E\d+", done.stdout, re.M)) == faults[path.name]
    else:
        assert done.stdout == "" and done.returncode == 0
        Template(path.read_text())


def test_the_parameters_file_fits():
    found = Template((TEMPLATES / "web-server.yaml").read_text())
    given_values = json.loads((TEMPLATES / "web-server.parameters.json").read_text())
    assert {one["ParameterKey"] for one in given_values} < found.parameters.keys()
