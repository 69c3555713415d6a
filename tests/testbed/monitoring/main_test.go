package main

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// Each changes a dashboard that is right in one place, and says at which path that is found.
func TestEachFieldThatIsWrongIsNamed(t *testing.T) {
	known()
	right, err := os.ReadFile("../../../config/dashboards/operator.json")
	if err != nil {
		t.Fatal(err)
	}
	if found := problems(right); len(found) > 0 {
		t.Fatalf("it is right, and not taken: %q", found)
	}
	for _, change := range []struct{ from, to, path string }{
		{`"editable": true`, `"editible": true`, "editible"},
		{`"editable": true`, `"editable": "yes"`, "editable"},
		{`"displayMode": "list"`, `"displayMood": "list"`, "panels[0].options.legend.VizLegendOptions: unexpected field 'displayMood'"},
		{`"displayMode": "list"`, `"displayMode": 1`, "panels[0].options.legend.displayMode"},
		{`"annotations": {`, `"annotation": {`, "unexpected field 'annotation'"},
		{`"unit": "short"`, `"units": "short"`, "panels[0].fieldConfig.defaults.FieldConfig: unexpected field 'units'"},
		{`"legendFormat"`, `"legend"`, "panels[0].targets[0].Dataquery: unexpected field 'legend'"},
		{`"type": "timeseries"`, `"type": "timeserie"`, "panels[0].type"},
		{`"uid": "${datasource}"`, `"name": "${datasource}"`, "unexpected field 'name'"},
	} {
		wrong := strings.Replace(string(right), change.from, change.to, 1)
		if wrong == string(right) {
			t.Errorf("there is no %s to change", change.from)
		}
		found := problems([]byte(wrong))
		if !slices.ContainsFunc(found, func(problem string) bool { return strings.Contains(problem, change.path) }) {
			t.Errorf("%s is not found: %q", change.path, found)
		}
	}
}
