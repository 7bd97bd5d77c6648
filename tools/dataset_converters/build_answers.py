"""Make the answer vocabulary from annotations in VQAv2's format: normalised, most frequent first, one per line.

python tools/dataset_converters/build_answers.py data/vqav2/v2_mscoco_train2014_annotations.json \\
    data/vqav2/v2_mscoco_val2014_annotations.json --out data/vqav2/answers.txt
"""

import argparse

from florence_mm.errors import one_sentence_errors
from florence_mm.formats.vqa import MIN_OCCURRENCES, annotator_answers, answer_vocabulary, read_annotations
from florence_mm.language.answers import normalize_answer
from florence_mm.utils.files import refuse_overwriting, write_atomic


def parse_args() -> argparse.Namespace:
    """Command-line arguments."""
    parser = argparse.ArgumentParser(description='Make an answer vocabulary')
    parser.add_argument('annotations', nargs='+', help="files in the format of VQAv2's annotations")
    parser.add_argument('--out', required=True, help='file to write, one answer per line')
    parser.add_argument(
        '--min-count',
        type=int,
        default=MIN_OCCURRENCES,
        help='questions of which an answer must be the main answer (default: %(default)s, which gives 3,129 '
        'answers on the training and validation questions of VQAv2)',
    )
    parser.add_argument(
        '--order',
        choices=('frequency', 'appearance'),
        default='frequency',
        help="order of the answers; METER's published weights need appearance, training before validation "
        '(default: %(default)s)',
    )
    return parser.parse_args()


def main() -> None:
    """Write the vocabulary and print what it covers."""
    args = parse_args()
    with one_sentence_errors():
        refuse_overwriting(args.out, args.annotations, '--out')
        annotations = read_annotations(args.annotations)
        answers = answer_vocabulary(annotations, args.min_count, args.order)
        known = set(answers)
        given = [[normalize_answer(answer) for answer in annotator_answers(item)] for item in annotations]
        said = sum(map(len, given))
        found = sum(answer in known for texts in given for answer in texts)
        without = sum(known.isdisjoint(texts) for texts in given)
        write_atomic(args.out, ''.join(f'{answer}\n' for answer in answers))
    print(
        f'{args.out}: {len(answers)} answers of {len(annotations)} questions; {found / said:.1%} of what annotators '
        f'said is among them, {without} questions have none that is'
    )


if __name__ == '__main__':
    main()
