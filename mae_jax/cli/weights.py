"""`mae-jax weights import` and `export`: published weights, and the weights of runs."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

from mae_jax import export, weights
from mae_jax.cli.sharing import beside
from mae_jax.data.vocabulary import FILE
from mae_jax.restore import load_run
from mae_jax.spec import build, check_spec
from mae_jax.types import UserError
from mae_jax.weights.files import read_json
from mae_jax.weights.layout import grouped
from mae_jax.weights.processor import images_of
from mae_jax.workdir import is_folder_of_weights, read_classes, read_config

PROCESSOR = "preprocessor_config.json"


def take(args) -> int:
    """mae-jax weights import"""
    if weights.is_run(args.source):
        raise UserError(f"{args.source} is already a run: pass it to other commands as --run")
    weights.check_new(args.out)
    options = weights.Options(
        encoder_only=args.encoder_only,
        heads=args.heads,
        decoder_heads=args.decoder_heads,
        image_size=args.image_size,
        positions=args.positions,
        mean=args.mean,
        std=args.std,
        target=args.target,
        allow=args.allow,
        key=args.key,
        layout=args.layout,
    )
    model, table = weights.read(args.source, options)
    weights.write_run(model, args.out)
    _print_mapping(table)
    size = " x ".join(map(str, model.image))
    listed = ", ".join(f"{name}={value!r}" for name, value in model.args.items())
    print(_images_line(model, args.source))
    if "vocabulary" in model.args:
        print(_texts_line(model, args))
    print(f"wrote {args.out}: {model.method} for {size} images: {listed}")
    return 0


def _images_line(model, source: str) -> str:
    """The preprocessing of images, and how it differs from what SOURCE states."""
    line, stated = f"images: {weights.transform_of(model)}", model.images
    if stated.transform:
        line += ", as used with these weights"
    elif stated.remark:
        line += f", NOT as used with these weights: {stated.remark}, which is not done here"
    else:
        line += f": {source} does not state its preprocessing"
    if stated.transform and stated.remark:
        line += f", but {stated.remark}"
    return line


def _texts_line(model, args) -> str:
    """The tokenizer of texts, or how to add one."""
    place = args.out / FILE
    if model.vocabulary:
        return f"texts: {place} is the tokenizer.json of {args.source}"
    return (
        f"texts: {args.source} has no tokenizer.json, which zero_shot needs: copy that of the "
        f"model to {place}"
    )


def give(args) -> int:
    """mae-jax weights export"""
    if args.format in export.FORMATS:
        return _export_function(args)
    try:
        check_spec(args.format, "weights.layouts")
    except UserError as error:
        raise UserError(f"{error} (or --format {', '.join(export.FORMATS)})") from error
    for name in ("output", "images"):
        if vars(args)[name] is not None:
            raise UserError(f"--{name} is for the formats stablehlo and onnx, not {args.format}")
    if not weights.is_run(args.run):
        raise UserError(f"{args.run} is not a run: convert it with mae-jax weights import")
    model, _ = weights.read(args.run)
    table = weights.write(
        model,
        args.out,
        args.format,
        head=args.head,
        encoder_only=args.encoder_only,
        image_size=args.image_size,
    )
    _print_mapping(table)
    if (args.out / PROCESSOR).is_file():
        size = args.image_size or model.image[:2]
        steps = images_of(read_json(args.out / PROCESSOR), {}, size).transform
        used = read_config(args.run).data.eval_transform
        print(f"images: in transformers {steps or f'as in {PROCESSOR}'}; this run used {used}")
    print(f"wrote {args.out}")
    beside(args.run, args.out, args.format)
    return 0


def _export_function(args) -> int:
    for name in ("head", "encoder_only", "image_size"):
        value = vars(args)[name]
        if value is not None and value is not False:
            option = f"--{name.replace('_', '-')}"
            raise UserError(f"{option} is not for the format {args.format}: use --output instead")
    run, state = load_run(args.run, images=args.images)
    export.export(
        run,
        state,
        args.out,
        output=args.output or "features",
        kind=args.format,
        own_images=args.images is None,
    )
    print(f"wrote {args.out}")
    beside(args.run, args.out, None)
    return 0


def _print_mapping(table) -> None:
    lines = [("theirs", "ours", "shape"), *grouped(table)]
    widths = [max(len(line[column]) for line in lines) for column in (0, 1)]
    for theirs, ours, shape in lines:
        print(f"{theirs:{widths[0]}}  {ours:{widths[1]}}  {shape}")


def check(args, run, evaluators) -> None:
    """Checks that classes and training images are known to the evaluators.

    Raises:
        UserError: imported weights, and evaluators that learn without --train; or other classes
            than the model's.
    """
    if not is_folder_of_weights(args.run):
        _check_train(args, run, evaluators)
        return
    for evaluator in evaluators:
        if "train" in evaluator.needs and not args.train:
            raise UserError(f"{evaluator.name} needs labeled training images: give --train FOLDER")
    option, split = ("--train", "train") if args.train else ("--images", "test")
    names = run.data.source(split).names
    for field, classes in run.method.labels().items():
        count = len(names.get(field, () if field == "label" else range(classes)))
        if classes == count:
            continue
        more = "" if args.train else "; or give --train with all classes"
        of, way = f" of {field!r}", "give a source with the same ones"
        if field == "label":
            of, way = "", "it needs one sub-folder per class, which in sorted order are the classes"
        raise UserError(
            f"{option} has {count} classes{of}, and these weights {classes}: {way}{more}"
        )


def _of_features(evaluator) -> bool:
    """Whether an evaluator reads features only, of whatever layer."""
    return all(output.partition("/")[0] == "features" for output in evaluator.outputs)


def _check_train(args, run, evaluators) -> None:
    """Raises UserError if the classes of --train are not those of the predictions that are read."""
    readers = [evaluator for evaluator in evaluators if not _of_features(evaluator)]
    if not args.train or not readers:
        return
    given, known = run.class_names, read_classes(args.run) or _names_of_data(args.run)
    for field, count in run.method.labels().items():
        theirs, ours = given.get(field, []), known.get(field)
        if ours is None and len(theirs) in (0, count):  # no names to compare
            continue
        pairs = itertools.zip_longest(ours or [], theirs)
        old, new = next((pair for pair in pairs if pair[0] != pair[1]), (None, None))
        if old != new:
            differ = f"has {len(theirs)} classes, and the model {count}"
            if ours:
                differ = f"has {new!r} where the run has {old!r}"
            raise UserError(
                f"{readers[0].name} reads {readers[0].outputs[0]} of the run's own classes, and "
                f"{field!r} of --train {differ}: use the same classes in the same order, or leave "
                "out --train"
            )


def _names_of_data(run: Path) -> Mapping[str, Sequence[str]]:
    """Field -> names of its classes in the training set of a run; {} if that is elsewhere now."""
    try:
        return build(read_config(run).data.train, "data.sources").names
    except UserError:
        return {}
