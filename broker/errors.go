package broker

import (
	"context"
	"errors"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/tierlog/tierlog/record"
	"github.com/tierlog/tierlog/tiered"
	"github.com/tierlog/tierlog/topicconf"
)

// errorCodes maps errors to Kafka's codes; the first match counts.
var errorCodes = []struct {
	err  error
	code *kerr.Error
}{
	{record.ErrCorrupt, kerr.CorruptMessage},
	{record.ErrMagic, kerr.InvalidRecord}, // as Kafka since 3.0: produce requests from version 3 on hold magic 2 only
	{record.ErrCodec, kerr.UnsupportedCompressionType},
	{record.ErrTooLarge, kerr.MessageTooLarge},
	{record.ErrTimestamp, kerr.InvalidTimestamp},
	{record.ErrInvalid, kerr.InvalidRecord},
	{tiered.ErrOutOfOrderSequence, kerr.OutOfOrderSequenceNumber},
	{tiered.ErrProducerEpoch, kerr.InvalidProducerEpoch},
	{tiered.ErrFenced, kerr.NotLeaderForPartition},
	{tiered.ErrClosed, kerr.NotLeaderForPartition},
	{tiered.ErrOutOfRange, kerr.OffsetOutOfRange},
	{tiered.ErrStorage, kerr.KafkaStorageError},
	{context.DeadlineExceeded, kerr.RequestTimedOut},
	{context.Canceled, kerr.KafkaStorageError},
}

// codeOf returns Kafka's code for an error, 0 for nil.
func codeOf(err error) int16 {
	if err == nil {
		return 0
	}
	if ke := (*kerr.Error)(nil); errors.As(err, &ke) {
		return ke.Code
	}
	for _, m := range errorCodes {
		if errors.Is(err, m.err) {
			return m.code.Code
		}
	}
	if inv := (*topicconf.InvalidError)(nil); errors.As(err, &inv) {
		return kerr.InvalidConfig.Code
	}
	return kerr.UnknownServerError.Code
}

// stored makes damage that a read met an error of the store: CORRUPT_MESSAGE would blame the producer, and have clients
// ask again at once for ever.
func stored(err error) error {
	for _, kind := range []error{record.ErrCorrupt, record.ErrMagic, record.ErrCodec, record.ErrInvalid} {
		if errors.Is(err, kind) {
			return &coded{kerr.KafkaStorageError, err.Error()}
		}
	}
	return err
}

// coded is an error with a message of its own under a Kafka code.
type coded struct {
	code *kerr.Error
	msg  string
}

func (e *coded) Error() string { return e.msg }
func (e *coded) Unwrap() error { return e.code }
