"""The Keras half: everything that needs tf_keras or TF-MOT lives here."""
