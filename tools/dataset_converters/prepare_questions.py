"""Write questions, answers and captions about the embedded scenes, in the formats of VQAv2 and COCO.

python tools/dataset_converters/prepare_scenes.py --out data/scenes
python tools/dataset_converters/prepare_questions.py --scenes data/scenes --out data/questions
"""

import argparse
import json
import time
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw

from florence_mm.corpora.questions import (
    KINDS,
    SPLITS,
    QuestionOptions,
    make_questions,
    write_questions,
)
from florence_mm.corpora.scene_facts import read_scenes
from florence_mm.errors import one_sentence_errors
from florence_mm.evaluation.functional.vqa import best_constant_answers, vqa_accuracy
from florence_mm.language.answers import soft_scores
from florence_mm.visualization.canvas import FAINT, INK, PAPER, fit_image, fit_text, font, save_png, tile, wrap_text

CELL_WIDTH, PICTURE = 620, 240


def parse_args() -> argparse.Namespace:
    """Command-line arguments."""
    default = QuestionOptions()
    parser = argparse.ArgumentParser(description='Write questions and captions about scenes of digits')
    parser.add_argument('--scenes', default='data/scenes', help='folder of prepare_scenes.py (default: data/scenes)')
    parser.add_argument('--out', default='data/questions', help='folder to write to (default: data/questions)')
    parser.add_argument(
        '--per-picture', type=float, default=default.per_picture, help='questions per image (default: %(default)s)'
    )
    parser.add_argument(
        '--contested',
        type=float,
        default=default.contested,
        help='fraction of the questions that annotators disagree about (default: %(default)s)',
    )
    parser.add_argument('--seed', type=int, default=default.seed, help='seed (default: %(default)s)')
    return parser.parse_args()


def draw_cell(picture: np.ndarray, questions: list[tuple[str, dict[str, float]]], captions: list[str]) -> np.ndarray:
    """Draw an image, its questions with the soft scores of their answers, and its captions."""
    cell = Image.new('RGB', (CELL_WIDTH, PICTURE + 24 * len(captions) + 8), PAPER)
    cell.paste(Image.fromarray(fit_image(picture, PICTURE, PICTURE)), (0, 0))
    draw, face, top = ImageDraw.Draw(cell), font(14), 0
    width = CELL_WIDTH - PICTURE - 12
    for text, scores in questions:
        best = sorted(scores.items(), key=lambda item: -item[1])
        for line in wrap_text(text, face, width, 1) + [f'    {", ".join(f"{a} {s:g}" for a, s in best)}']:
            draw.text(
                (PICTURE + 12, top), fit_text(line, face, width), font=face, fill=INK if line[0] != ' ' else FAINT
            )
            top += 19
        top += 3
    for number, text in enumerate(captions):
        draw.text((0, PICTURE + 6 + 24 * number), fit_text(text, face, CELL_WIDTH), font=face, fill=INK)
    return np.array(cell)


def draw_sheet(scenes: Path, out: Path, split: str, number: int = 12, per_picture: int = 5) -> None:
    """Draw the first scenes with some of their questions and captions, and write the contact sheet."""
    rows = [json.loads(line) for line in (out / f'{split}.jsonl').read_text().splitlines()[:number]]
    questions = json.loads((out / f'{split}_questions.json').read_bytes())['questions']
    annotations = json.loads((out / f'{split}_annotations.json').read_bytes())['annotations']
    cells = []
    for row in rows:
        found = [
            (question['question'], soft_scores([item['answer'] for item in annotation['answers']]))
            for question, annotation in zip(questions, annotations, strict=True)
            if question['image_id'] == row['image_id']
        ]
        picture = cv2.imread(str(scenes / split / row['image']))
        if picture is None:
            raise FileNotFoundError(f'there is no image {scenes / split / row["image"]}; write the scenes again')
        cells.append(draw_cell(picture[..., ::-1], found[:per_picture], row['texts']))
    save_png(tile(cells, columns=2), out / f'contact_sheet_{split}.png')


def report(scenes: Path, options: QuestionOptions, split: str) -> str:
    """Table of the accuracy of the correct answers, and of the best constant answer per question text and kind."""
    asked = make_questions(read_scenes(scenes / f'annotations/{split}.json'), options, split)
    given = [[item['answer'] for item in answers] for _, answers in asked]
    right = [vqa_accuracy(question.answer, answers) for (question, _), answers in zip(asked, given, strict=True)]
    by_text = best_constant_answers([question.text for question, _ in asked], given)
    by_kind = best_constant_answers([question.kind for question, _ in asked], given)
    lines = [f'{"accuracy on " + split:<24} questions  right answer  question alone  best constant']
    for kind in [*KINDS, 'all']:
        places = [i for i, (question, _) in enumerate(asked) if kind in ('all', question.kind)]
        if places:
            figures = (
                np.mean([right[i] for i in places]),
                np.mean([by_text[asked[i][0].text][1] for i in places]),
                np.mean([by_kind[asked[i][0].kind][1] for i in places]),
            )
            constant = '' if kind == 'all' else f' ({by_kind[kind][0]})'
            lines.append(
                f'{kind:<24} {len(places):9d}  {figures[0]:12.4f}  {figures[1]:14.4f}  {figures[2]:13.4f}{constant}'
            )
    return '\n'.join(lines)


def main() -> None:
    """Write the files, draw contact sheets, and print the reachable accuracies."""
    args = parse_args()
    start = time.monotonic()
    scenes, out = Path(args.scenes), Path(args.out)
    with one_sentence_errors():
        options = QuestionOptions(args.per_picture, args.contested, args.seed)
        written, total = write_questions(scenes, out, options)
        for split in SPLITS:
            if written or not (out / f'contact_sheet_{split}.png').is_file():
                draw_sheet(scenes, out, split)
        reports = [report(scenes, options, split) for split in SPLITS]
    answers = len((out / 'answers.txt').read_text().splitlines())
    what = f'wrote {written} of {total} files' if written else f'all {total} files were there already'
    print('\n\n'.join(reports))
    print(f'{out}: questions and captions about {scenes}, {answers} answers to learn; ', end='')
    print(f'{what} ({time.monotonic() - start:.1f} s); look at contact_sheet_*.png')


if __name__ == '__main__':
    main()
