package rollup

import "github.com/tierlog/tierlog/objstore"

type stream struct{ objstore.Payload }

func (s *stream) failure() error { return nil }
