package tiered

import (
	"context"
)

// rollUp rewrites small objects and gives partitions their own log segments.
func (m *maintainer) rollUp(_ context.Context) error { return nil }

// retain moves log starts.
func (m *maintainer) retain(_ context.Context) error { return nil }

// dropDead takes objects that nothing refers to out of the manifests.
func (m *maintainer) dropDead(_ context.Context) error { return nil }

// dropped notes a deleted partition.
func (m *maintainer) dropped(_ *Partition) {}
