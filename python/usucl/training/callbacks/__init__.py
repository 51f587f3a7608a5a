"""What goes on beside the steps of a training: what is measured, watched, told and recorded."""
