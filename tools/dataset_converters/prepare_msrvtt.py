"""Write manifests for text-to-video retrieval on MSR-VTT (1K-A) from its public files.

python tools/dataset_converters/prepare_msrvtt.py --test-csv MSRVTT_JSFUSION_test.csv --train-csv MSRVTT_train.9k.csv \\
    --annotations MSRVTT_data.json --videos data/msrvtt/videos --out data/msrvtt
"""

import argparse

from florence_mm.errors import one_sentence_errors
from florence_mm.preparation.msrvtt import VideoFiles, write_msrvtt


def main() -> None:
    """Write the manifests and print the numbers of videos."""
    parser = argparse.ArgumentParser(description='Write manifests of MSR-VTT (1K-A) from its public files')
    parser.add_argument('--test-csv', required=True, help='MSRVTT_JSFUSION_test.csv')
    parser.add_argument('--train-csv', help='MSRVTT_train.9k.csv; without it only test.jsonl is written')
    parser.add_argument(
        '--annotations', help='MSRVTT_data.json, the captions of the training videos; needs --train-csv'
    )
    parser.add_argument('--videos', default='data/msrvtt/videos', help='folder of the videos (default: %(default)s)')
    parser.add_argument('--suffix', default='.mp4', help='extension of the video files (default: %(default)s)')
    parser.add_argument('--out', default='data/msrvtt', help='folder to write to (default: %(default)s)')
    parser.add_argument(
        '--skip-missing', type=int, default=0, metavar='N', help='leave out up to N missing videos (default: 0)'
    )
    args = parser.parse_args()
    with one_sentence_errors():
        files = VideoFiles(args.videos, args.suffix, args.skip_missing)
        counts = write_msrvtt(args.out, files, args.test_csv, args.train_csv, args.annotations)
    print(f'{args.out}: ' + ', '.join(f'{number} videos in {split}.jsonl' for split, number in counts.items()))
    if files.missing:
        print(f'missing videos left out: {len(files.missing)}; recall over fewer videos is not comparable')


if __name__ == '__main__':
    main()
