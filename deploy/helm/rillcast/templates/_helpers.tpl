{{/* Name of all objects. */}}
{{- define "rillcast.fullname" -}}
{{- default (default .Release.Name .Values.nameOverride) .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{/* Labels that select the members of this release and no others. */}}
{{- define "rillcast.selector" -}}
app.kubernetes.io/name: rillcast
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/part-of: rillcast
{{- end -}}

{{- define "rillcast.labels" -}}
{{ include "rillcast.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* A manifest of Kustomize with the names and labels of this release. Arguments: root, file. */}}
{{- define "rillcast.manifest" -}}
{{- $m := .root.Files.Get .file | fromYaml -}}
{{- if or (hasKey $m "Error") (not (hasKey $m "kind")) -}}{{- fail (printf "%s is not a manifest" .file) -}}{{- end -}}
{{- $_ := set $m.metadata "name" (include "rillcast.fullname" .root) -}}
{{- $_ := set $m.metadata "namespace" .root.Release.Namespace -}}
{{- $_ := set $m.metadata "labels" (include "rillcast.labels" .root | fromYaml) -}}
{{- toYaml $m -}}
{{- end -}}

{{/* The settings: those of Kustomize, and over them the values. */}}
{{- define "rillcast.toml" -}}
{{- $settings := .Files.Get "base/rillcast.toml" | fromToml -}}
{{- $settings = mergeOverwrite $settings (deepCopy .Values.settings) -}}
{{- if .Values.localStore.enabled -}}
{{- $_ := set $settings.state "store" "local" -}}
{{- end -}}
{{- toToml $settings -}}
{{- end -}}

{{- define "rillcast.image" -}}
{{- $default := printf "%s-%s" .Chart.AppVersion (ternary "cuda" "cpu" .Values.gpu.enabled) -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default $default .Values.image.tag) -}}
{{- end -}}
{{- end -}}
