"""Synthetic ultrasound sweeps: a labelled data set to try the whole path without real data.

A probe slides along an organ (coordinate x, 0 to 1) and sees one slice after another. Lesions
are ellipsoids that come and go along the sweep. Every slice is imaged by a simple convolution
model of B-mode imaging: random scatterers weighted by the tissue's echo strength, blurred by the
point-spread function, attenuated along the beam, demodulated to the envelope (which makes Rayleigh
speckle), log-compressed, and scan-converted from beams to the sector of a convex probe. The
scatterers are fixed in the organ, so the speckle moves with the probe and decorrelates along the
sweep.

Lengths in the image plane are in units of the nominal imaging depth.

    anatomy    what lies where in an organ, and how its tissue answers sound
    machine    the look of a machine: speckle, noise, grey map, persistence, marks
    imaging    a sweep of the probe, and the frames that a machine shows of it
    folder     write_phantom: videos of many patients with their labels
"""

from usucl.data.phantom.folder import is_synthetic, mark_synthetic, write_phantom

__all__ = ["is_synthetic", "mark_synthetic", "write_phantom"]
