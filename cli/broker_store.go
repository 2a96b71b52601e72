package cli
import "github.com/tierlog/tierlog/cli/settings"
func checkStore(s string) error {return notEmpty("store", s)}
func redactStore(s string) string {return s}
func checkConfigNames(map[string]string) error {return nil}
func brokerConfigValues(vs []settings.Value) []settings.Value { return vs}
