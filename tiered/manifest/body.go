package manifest

// EncodeBody frames the fields of a body that another package defines (the metadata log's): v must marshal to a JSON
// object of at least one field. The frame gives it a nonce, the format version, its kind and a checksum.
func EncodeBody(k Kind, n Nonce, v any) ([]byte, error) { return encode(k, n, v) }

// DecodeBody checks the frame of such a body and fills v. Fields that v does not know are ErrCorrupt, since a new field
// comes with a new format.
func DecodeBody(k Kind, body []byte, v any) (Nonce, error) { return decode(k, body, v, false) }
