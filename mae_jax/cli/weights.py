"""`mae-jax weights import` and `export`: published weights in, those of runs out."""

from mae_jax import export, weights
from mae_jax.restore import load_run
from mae_jax.spec import build, check_spec
from mae_jax.types import UserError
from mae_jax.weights.layout import grouped
from mae_jax.workdir import is_folder_of_weights, read_config


def take(args) -> int:
    """mae-jax weights import"""
    if weights.is_run(args.source):
        raise UserError(f"{args.source} is a run already: give it to other commands as --run")
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
    height, width, channels = model.image
    said = ", ".join(f"{name}={value!r}" for name, value in model.args.items())
    print(_images_line(model, args.source))
    print(f"wrote {args.out}: {model.method} of images {height} x {width} x {channels}: {said}")
    return 0


def _images_line(model, source: str) -> str:
    """How images will be made, and what of it SOURCE does not say or wants otherwise."""
    line, said = f"images: {weights.transform_of(model)}", model.images
    if said.transform:
        line += ", as used with these weights"
    elif said.remark:
        line += f", NOT as used with these weights: {said.remark}, which is not done here"
    else:
        line += f": {source} does not say how they were made"
    if said.transform and said.remark:
        line += f", but {said.remark}"
    return line


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
        raise UserError(f"{args.run} is no run: make one of it by mae-jax weights import")
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
    if (args.out / "preprocessor_config.json").is_file():
        said = read_config(args.run).data.eval_transform
        print(f"images: its processor resizes them whole, bicubic; this run made them by {said}")
    print(f"wrote {args.out}")
    return 0


def _export_function(args) -> int:
    for name in ("head", "encoder_only", "image_size"):
        value = vars(args)[name]
        if value is not None and value is not False:
            raise UserError(f"--{name.replace('_', '-')} is not for {args.format}: see --output")
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
    return 0


def _print_mapping(table) -> None:
    lines = [("theirs", "ours", "shape"), *grouped(table)]
    widths = [max(len(line[column]) for line in lines) for column in (0, 1)]
    for theirs, ours, shape in lines:
        print(f"{theirs:{widths[0]}}  {ours:{widths[1]}}  {shape}")


def check(args, run, evaluators) -> None:
    """Sees that it is known which class is which, and what evaluators of imported weights learn
    from.

    Raises:
        UserError: evaluators learn from images and none are given, or the classes are others.
    """
    if not is_folder_of_weights(args.run):
        _check_train(args, run, evaluators)
        return
    for evaluator in evaluators:
        if "train" in evaluator.needs and not args.train:
            raise UserError(f"{evaluator.name} learns from images with labels: give --train FOLDER")
    option, split = ("--train", "train") if args.train else ("--images", "test")
    found = len(run.data.source(split).names.get("label", ()))
    classes = run.method.labels().get("label", found)
    if classes != found:
        more = "" if args.train else "; or give --train FOLDER with all of them"
        raise UserError(
            f"{option} has {found} classes, and these weights {classes}: the folders in the order "
            f"of their names must be the classes{more}"
        )


def _check_train(args, run, evaluators) -> None:
    """Raises UserError if --train numbers classes otherwise than the logits that are read."""
    readers = [evaluator for evaluator in evaluators if {*evaluator.outputs} != {"features"}]
    if not args.train or not readers:
        return
    found = run.data.source("train").names.get("label", ())
    try:
        source = build(read_config(args.run).data.train, "data.sources")
        learned = source.names.get("label", ())
    except UserError:  # it is not on this machine: as of imported weights, the number must do
        learned = found if len(found) == run.method.labels().get("label") else None
    if learned is None or tuple(learned) != tuple(found):
        raise UserError(
            f"{readers[0].name} reads logits of the classes that the run has learned, and those of "
            "--train are others, or in another order: leave out --train"
        )
