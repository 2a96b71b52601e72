package cli

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"strconv"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kgo"
)

// printBuffer is how much output is gathered before it is written; what is left is written when input pauses.
const printBuffer = 256 << 10

// recordPrinter prints records to a buffer in front of w.
type recordPrinter struct {
	w      io.Writer
	buf    []byte
	append func(b []byte, p *kgo.FetchPartition, r *kgo.Record) []byte
}

func newRecordPrinter(w io.Writer, format string, asJSON bool) (*recordPrinter, error) {
	rp := &recordPrinter{w: w, buf: make([]byte, 0, printBuffer+printBuffer/4)}
	switch {
	case asJSON:
		rp.append = func(b []byte, _ *kgo.FetchPartition, r *kgo.Record) []byte { return appendRecordJSON(b, r) }
	case format == `%v\n`:
		rp.append = func(b []byte, _ *kgo.FetchPartition, r *kgo.Record) []byte {
			return append(append(b, r.Value...), '\n')
		}
	default:
		f, err := kgo.NewRecordFormatter(format)
		if err != nil {
			return nil, err
		}
		rp.append = f.AppendPartitionRecord
	}
	return rp, nil
}

func (rp *recordPrinter) print(p *kgo.FetchPartition, r *kgo.Record) error {
	rp.buf = rp.append(rp.buf, p, r)
	if len(rp.buf) < printBuffer {
		return nil
	}
	return rp.flush()
}

func (rp *recordPrinter) flush() error {
	if len(rp.buf) == 0 {
		return nil
	}
	_, err := rp.w.Write(rp.buf)
	rp.buf = rp.buf[:0]
	return err
}

// appendRecordJSON appends a record as one line of JSON.
func appendRecordJSON(b []byte, r *kgo.Record) []byte {
	b = append(b, `{"topic":`...)
	b = appendJSONString(b, []byte(r.Topic))
	b = append(b, `,"partition":`...)
	b = strconv.AppendInt(b, int64(r.Partition), 10)
	b = append(b, `,"offset":`...)
	b = strconv.AppendInt(b, r.Offset, 10)
	b = append(b, `,"timestamp":"`...)
	b = r.Timestamp.UTC().AppendFormat(b, "2006-01-02T15:04:05.000Z07:00")
	b = append(b, `",`...)
	b = appendJSONBytes(b, "key", r.Key)
	b = append(b, ',')
	b = appendJSONBytes(b, "value", r.Value)
	b = append(b, `,"headers":[`...)
	for i, h := range r.Headers {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, '{')
		b = appendJSONBytes(b, "key", []byte(h.Key))
		b = append(b, ',')
		b = appendJSONBytes(b, "value", h.Value)
		b = append(b, '}')
	}
	return append(b, "]}\n"...)
}

// appendJSONBytes appends a member: null for none, a string for UTF-8, and base64 under another name for the rest.
func appendJSONBytes(b []byte, name string, v []byte) []byte {
	b = append(b, '"')
	b = append(b, name...)
	switch {
	case v == nil:
		return append(b, `":null`...)
	case utf8.Valid(v):
		return appendJSONString(append(b, `":`...), v)
	default:
		b = append(b, `_base64":"`...)
		b = base64.StdEncoding.AppendEncode(b, v)
		return append(b, '"')
	}
}

// appendJSONString appends v as a JSON string; v is UTF-8.
func appendJSONString(b, v []byte) []byte {
	b = append(b, '"')
	start := 0
	for i, c := range v {
		if c >= 0x20 && c != '"' && c != '\\' {
			continue
		}
		b = append(b, v[start:i]...)
		quoted, _ := json.Marshal(string(v[i : i+1])) // A byte of ASCII cannot fail.
		b = append(b, quoted[1:len(quoted)-1]...)
		start = i + 1
	}
	b = append(b, v[start:]...)
	return append(b, '"')
}
