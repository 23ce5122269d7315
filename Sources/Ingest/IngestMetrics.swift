import Runtime
import WebSocket

/// What one process counts, shared by its loops.
final class IngestMetrics: Sendable {
    let connections: Gauge
    let sessions: Gauge
    let links: Gauge
    let queuedBytes: Gauge
    let logQueue: Gauge
    let underWay: Gauge
    let databaseCalls: Gauge
    let framesIn: Counter
    let messages: Counter
    let signals: Counter
    let deliveries: Counter
    let batches: Counter
    let badRequests: Counter
    let fills: Counter
    let largeChatQuestions: Counter
    let histories: Counter
    let toLog: Histogram
    let fromJoin: Histogram
    let endToEnd: Histogram
    private let refusals: [String: Counter]
    private let closeCounters: [UInt16: Counter]
    private let otherCloses: Counter
    private let answers: [Counter]
    private let tokenErrors: [TokenError: Counter]

    init(_ metrics: Metrics) {
        connections = metrics.gauge("fanout_ingest_connections", "Open connections, HTTP and WebSocket")
        sessions = metrics.gauge("fanout_ingest_sessions", "Devices with a session")
        links = metrics.gauge("fanout_ingest_links", "Open links from Delivery workers")
        queuedBytes = metrics.gauge(
            "fanout_ingest_queued_bytes", "Bytes that wait for slow clients, looked at every two seconds")
        logQueue = metrics.gauge(
            "fanout_ingest_log_queue", "Records that the log has not acknowledged, looked at every second")
        underWay = metrics.gauge(
            "fanout_ingest_under_way", "Messages whose events have not come back, looked at every second")
        databaseCalls = metrics.gauge(
            "fanout_ingest_database_calls", "Questions to Postgres without an answer, looked at every second")
        framesIn = metrics.counter("fanout_ingest_frames_total", "Text frames from devices")
        messages = metrics.counter("fanout_ingest_messages_total", "Messages acknowledged by the log")
        signals = metrics.counter("fanout_ingest_signals_total", "Typing and receipts given to the log")
        deliveries = metrics.counter("fanout_ingest_deliveries_total", "Events queued to devices")
        batches = metrics.counter("fanout_ingest_batches_total", "Batches taken from Delivery workers")
        badRequests = metrics.counter("fanout_ingest_bad_requests_total", "Requests that HTTP's rules refuse")
        fills = metrics.counter("fanout_ingest_fills_total", "Pages of missed events asked from Delivery")
        largeChatQuestions = metrics.counter(
            "fanout_ingest_large_chat_questions_total",
            "Questions to Postgres about large chats, each for up to 2,000 sessions that start")
        histories = metrics.counter("fanout_ingest_history_fills_total", "Sessions that needed History to catch up")
        toLog = metrics.histogram("fanout_ingest_log_seconds", "From a device's frame to the log's acknowledgement")
        fromJoin = metrics.histogram(
            "fanout_ingest_delivery_seconds", "From the join's record to the queues of its devices' sockets, sampled")
        endToEnd = metrics.histogram(
            "fanout_ingest_end_to_end_seconds",
            "From a message's place in the log to the queues of its devices' sockets, sampled")
        refusals = Dictionary(
            uniqueKeysWithValues: ErrorCode.allCases.map { code in
                let help = "Frames answered with an error"
                return (code.rawValue, metrics.counter("fanout_ingest_refused_total", help, ["code": code.rawValue]))
            })
        let codes: [UInt16] = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1012, 1013, 4001, 4002, 4003, 4008, 4009]
        let help = "Sessions closed by the server"
        closeCounters = Dictionary(
            uniqueKeysWithValues: codes.map {
                ($0, metrics.counter("fanout_ingest_closes_total", help, ["code": "\($0)"]))
            })
        otherCloses = metrics.counter("fanout_ingest_closes_total", help, ["code": "other"])
        answers = (1...5).map {
            metrics.counter("fanout_ingest_responses_total", "HTTP responses", ["class": "\($0)xx"])
        }
        tokenErrors = Dictionary(
            uniqueKeysWithValues: TokenError.allCases.map {
                ($0, metrics.counter("fanout_ingest_auth_failures_total", "Tokens refused", ["why": "\($0)"]))
            })
    }

    var refusedTotal: UInt64 { refusals.values.reduce(0) { $0 + $1.value } }

    func refused(_ code: ErrorCode) { refusals[code.rawValue]?.add() }
    func closes(_ code: CloseCode) { (closeCounters[code.rawValue] ?? otherCloses).add() }
    func responses(_ status: Int) { answers[min(max(status / 100, 1), 5) - 1].add() }
    func failed(_ error: TokenError) { tokenErrors[error]?.add() }
}
