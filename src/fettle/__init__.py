"""fettle: from a trained model to the fastest artifact proven inside an accuracy budget."""
