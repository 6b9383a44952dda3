"""The code that the notebooks share, one concept a file.

Imports point one way, downwards in this list:

=========================  ====================================================================
``address``                where the project is published, written into badges and setup cells
``colab``                  what a Colab session lacks
``outcome``                how `run_all.py` ended, for machines
``terminal``               what `run_all.py` tells: how far it is, and how it went
``scheduling``             several notebooks at once: on this machine, on a Dask cluster
``verification``           a run compared with the same run again: every table, every number
``series``                 what a run is: notebooks, parameters, plan; what it refuses
``journal``                what happens in a run, noted in `run.json`; a folder's lock
``provenance``             what a finished notebook was made from, and whether that has changed
``headless``               executing a notebook without a person looking on
``sharing``                a copy of a run that can be given away, and the search for names in it
``report``                 the HTML page of a run
``report_tables``          its tables of results
``embedded``               figures and tables inside an HTML page
``model_card``             who may use a run's networks for what, in Markdown
``known_failures``         what is known to go wrong with a run's networks
``plots``                  every figure, a file a group of notebooks: tables in, a figure out
``widgets``                a slider and an upload button, where a person looks on
``figures``                a figure saved with its caption, and shown with it
``summary``                the comparison in words
``readable``               names, numbers and tables as people read them
``simulation``             studies whose truth is known, to check intervals and tests
``domains``                one stain or site left out of training, and judged
``robustness``             predictions of shifted pictures, and how they change
``spread``                 how far a result moves with the seed of the training
``learning_curve``         would more patients help?
``leakage``                the audit: one head, three ways to split, true and shuffled labels
``exported``               exported files, run and held against their network
``export``                 a network as files for other programs, and what goes with them
``serving``                a network for TensorFlow Serving; resizing there as Pillow does it
``explained_run``          every check of a network's heatmaps; mistakes and their neighbours
``explanation_checks``     whether heatmaps deserve belief, against chance
``explanation``            Grad-CAM, HiResCAM, integrated gradients; heat over the picture
``inference``              a trained model on new images: answer, or refer to a pathologist
``new_images``             which images: a folder, an archive, a list
``neighbours``             nearest images in feature space, images unlike any, the map
``loading``                the numbers of a model file, and nothing else of it
``fine_tuning``            the whole network, or what comes after a cut
``checkpoints``            a training that was broken off goes on after its last whole epoch
``training``               heads on frozen features, saved models
``locked``                 a run's thresholds, calibration, abstention: chosen before test
``evaluation``             what is judged on what; the comparison of a run
``shortcuts``              the baseline that sees no cell
``significance``           tests between models that know groups
``calibration``            slope and intercept, isotonic, reliability
``recalibration``          calibration in the large and slope, with intervals
``decisions``              thresholds, net benefit, abstention
``mean_auc``               the mean AUC of repeated cross-validations, each within its folds
``intervals``              95 % intervals that know groups
``metrics``                every metric of binary predictions
``clusters``               variances that know groups and folds
``predictions``            the table of predictions
``discreet``               what a page may tell of a run's facts: no path, no name
``pipeline``               decode once, feed ``tf.data``, frozen features once
``precision``              how many bits a network computes in
``architectures``          the three networks, and one ``build``
``weights``                where their weights come from, and what to say when there are none
``backend``                TensorFlow and Keras, started once and quietly
``features``               the cache of frozen features, read without TensorFlow
``heads``                  linear heads on features, kept and used without TensorFlow
``caveats``                what a run must say aloud wherever its numbers show
``grid``                   the same training with other seeds, or with a fold held out
``pseudonyms``             short names for patients, slides, groups and images
``splitting``              groups, folds, the leak guard
``datasets``               what `data` names, the manifest, pictures written as files
``sources``                published sets; ``breakhis`` and ``fnac`` know how theirs are named
``archives``               downloads that go on where they broke, safe unpacking
``sample``                 the procedural smear sample
``inspection``             every image opened once; what is wrong with which
``quality``                blank, blurred, over-exposed; what a manifest knows of a file
``copies``                 copies of one image, turned by any angle
``images``                 opening an image as RGB, or saying why not
``tiffs``                  TIFF that Pillow does not read rightly
``deep_images``            pictures of more than 8 bits as 8-bit ones
``folders``                a folder of one's own: which files are its images
``patients``               whose image it is: a pattern over the path, or a CSV file
``spreadsheets``           CSV files that a person made
``classes``                the class of an image, by the folders on its path
``given_split``            a split that a folder brings along
``masks``                  masks and drawings beside the images
``image_kinds``            which image files are read: formats by first bytes, limits of size
``shifts``                 another stain, light, focus, compression or scale of a picture
``augmentation``           exact orientations, squares
``store``                  arrays on disk, found by name: what the caches are made of
``tables``                 CSV and JSON files that pass between notebooks
``shapes``                 the types of a run's JSON files
``wording``                numbers and lists as words
``settings``               parameters, paths, seeds, versions, workers
``networks``               the networks that are compared: title, weights, look
``streams``                what a command prints, when nobody reads it any more
=========================  ====================================================================
"""

import os

# TensorFlow reads this when it is first imported: without it, its start-up chatter fills the
# first cell of every notebook. Errors are still shown.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
