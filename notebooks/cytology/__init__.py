"""The code that the notebooks share, in rooms. Imports run downhill in this list.

==========================  ==================================================================
``runner``                  run_all.py: the plan, what has changed, the record, the terminal
``report``                  report page, model card, checklist, a copy without names
``plots``                   figures: tables in, a Matplotlib figure out
``explanation``             heatmaps, and whether they can be trusted (12)
``audits``                  leakage, shifts, subgroups, study size, simulation (10, 11, 14)
``inference``               new images, similar images, files for other programs (09, 13)
``training``                heads on frozen features, fine-tuning (04 to 06)
``networks``                TensorFlow, building, weights, frozen features, caches of arrays
``evaluation``              predictions, comparison, operating points, caveats, sentences (07, 08)
``evaluation.statistics``   metrics, intervals, significance, calibration, decisions
``data``                    inspection, copies, the manifest, augmentation, splits (01 to 03)
``data.sources``            folders, patients, published sets, the drawn sample
``data.images``             one image file as 8-bit RGB
``data.drawing``            one drawn smear
``run``                     a run: its folder and the files in it
``parameters``              every parameter of the notebooks
``tables``                  CSV and JSON files, read and written
``machine``                 versions, the commit, processor cores
``files``, ``notebook``     atomic writes; what a notebook shows while it runs
``catalogue``               every file of a run: who writes and reads it, what it holds
``settings``                folders, and the errors that a user may see
``architectures``           the networks, one entry each
``wording``, ``colab``      numbers and lists as text; the set-up of a Colab session
==========================  ==================================================================
"""
