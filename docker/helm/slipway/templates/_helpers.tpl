{{- define "slipway.name" -}}
{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "slipway.serviceAccount" -}}
{{ default (include "slipway.name" .) .Values.serviceAccount.name }}
{{- end }}

{{- define "slipway.replicasNamespace" -}}
{{ default .Release.Namespace .Values.replicas.namespace }}
{{- end }}

{{- define "slipway.selector" -}}
app.kubernetes.io/name: slipway
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "slipway.labels" -}}
{{ include "slipway.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- /* The pod of one role. Give it a dict: root, role, args, port (0: none), ready (its path), rights (whether it talks to the cluster). */ -}}
{{- define "slipway.pod" -}}
{{- if .rights }}
serviceAccountName: {{ include "slipway.serviceAccount" .root }}
{{- end }}
automountServiceAccountToken: {{ .rights }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
{{- with .root.Values.image.pullSecret }}
imagePullSecrets:
  - name: {{ . }}
{{- end }}
{{- with .root.Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
terminationGracePeriodSeconds: 60
containers:
  - name: {{ .role }}
    image: "{{ .root.Values.image.repository }}:{{ default .root.Chart.AppVersion .root.Values.image.tag }}"
    imagePullPolicy: {{ .root.Values.image.pullPolicy }}
    args:
      {{- toYaml .args | nindent 6 }}
    envFrom:
      - secretRef: {name: {{ required "secretName must name a Secret" .root.Values.secretName }}}
    env:
      {{- include "slipway.environment" .root | nindent 6 }}
    resources:
      {{- toYaml (index .root.Values .role).resources | nindent 6 }}
    securityContext:
      allowPrivilegeEscalation: false
      readOnlyRootFilesystem: true
      capabilities: {drop: [ALL]}
    {{- if .port }}
    ports:
      - {name: http, containerPort: {{ .port }}, protocol: TCP}
    startupProbe:
      httpGet: {path: /healthz, port: http}
      periodSeconds: 2
      failureThreshold: 60
    livenessProbe:
      httpGet: {path: /healthz, port: http}
      periodSeconds: 10
      timeoutSeconds: 5
      failureThreshold: 6
    readinessProbe:
      httpGet: {path: {{ .ready }}, port: http}
      periodSeconds: 5
      timeoutSeconds: 5
    lifecycle:
      # Endpoints forget a pod a moment after it is told to end: it answers until then.
      preStop: {exec: {command: [sleep, "5"]}}
    {{- end }}
    volumeMounts:
      - {name: data, mountPath: /var/lib/slipway}
      - {name: scratch, mountPath: /tmp}
volumes:
  - name: data
    {{- if .root.Values.data.existingClaim }}
    persistentVolumeClaim: {claimName: {{ .root.Values.data.existingClaim }}}
    {{- else }}
    emptyDir: {}
    {{- end }}
  - {name: scratch, emptyDir: {}}
{{- end }}

{{- define "slipway.environment" -}}
- {name: SLIPWAY_PUBLIC_URL, value: {{ required "publicUrl must say where people reach Slipway" .Values.publicUrl | quote }}}
- {name: SLIPWAY_PROVIDERS, value: kubernetes}
- {name: SLIPWAY_KUBERNETES_NAMESPACE, value: {{ include "slipway.replicasNamespace" . | quote }}}
- {name: SLIPWAY_KUBERNETES_SERVING_IMAGE, value: {{ .Values.replicas.image | quote }}}
- {name: SLIPWAY_KUBERNETES_IMAGE_PULL_SECRET, value: {{ .Values.replicas.imagePullSecret | quote }}}
- {name: SLIPWAY_KUBERNETES_PRICE_PER_HOUR, value: {{ .Values.replicas.pricePerHour | quote }}}
- {name: SLIPWAY_KUBERNETES_NODE_SELECTOR, value: {{ .Values.replicas.nodeSelector | toJson | quote }}}
- {name: SLIPWAY_KUBERNETES_TOLERATIONS, value: {{ .Values.replicas.tolerations | toJson | quote }}}
- {name: SLIPWAY_KUBERNETES_AGENT_CA, value: {{ .Values.replicas.agentCa | quote }}}
- {name: SLIPWAY_KUBERNETES_VOLUME_CLAIM, value: {{ .Values.weights.existingClaim | quote }}}
- {name: SLIPWAY_KUBERNETES_STORAGE_CLASS, value: {{ .Values.weights.storageClass | quote }}}
- {name: SLIPWAY_KUBERNETES_VOLUME_SIZE, value: {{ .Values.weights.size | quote }}}
# Only the ingress and pods of this cluster reach these ports.
- {name: FORWARDED_ALLOW_IPS, value: "*"}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "slipway.deployment" -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ include "slipway.name" .root }}-{{ .role }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "slipway.labels" .root | nindent 4 }}
    app.kubernetes.io/component: {{ .role }}
spec:
  replicas: {{ (index .root.Values .role).copies }}
  selector:
    matchLabels:
      {{- include "slipway.selector" .root | nindent 6 }}
      app.kubernetes.io/component: {{ .role }}
  template:
    metadata:
      labels:
        {{- include "slipway.labels" .root | nindent 8 }}
        app.kubernetes.io/component: {{ .role }}
    spec:
      {{- include "slipway.pod" . | nindent 6 }}
{{- end }}
