import Runtime
public import System

/// `fanout lag --watch`: looks each interval, draws what was found, and gives the terminal back however it ends.
///
/// On the loop's thread only.
public final class LagScreen {
    /// What would otherwise end or stop the process with the terminal still taken. Block them before any thread starts.
    public static let signals: [ProcessSignal] = [
        .interrupt, .terminate, .hangup, .terminalStop, .continue, .windowChange,
    ]

    private let observer: LagObserver
    private let loop: EventLoop
    private let screen: FullScreen
    private let table: LagTable
    private let intervalMs: Int
    private let timeoutMs: Int
    private var view = LagWatch()
    private var before: LagSample?
    private var status: LagStatus?
    private var isEnding = false

    /// `nil` where there is no terminal.
    public init?(_ observer: LagObserver, on loop: EventLoop, table: LagTable, intervalMs: Int, timeoutMs: Int) {
        guard let screen = FullScreen() else { return nil }
        self.observer = observer
        self.loop = loop
        self.screen = screen
        self.table = table
        self.intervalMs = intervalMs
        self.timeoutMs = timeoutMs
    }

    /// Until q is pressed or a signal says so.
    public func run() throws(SystemError) {
        let watch = try Signals.watch(Self.signals, on: loop) { [unowned self] signal in answer(signal) }
        defer { watch.cancel() }
        let keys = try loop.watch(screen.keyDescriptor) { [unowned self] _ in
            // The terminal itself may be gone.
            guard let key = screen.readKey() else { return end() }
            if key == UInt8(ascii: "q") { end() }
        }
        defer { keys.cancel() }
        screen.enter()
        defer { screen.leave() }
        draw()
        look()
        loop.run()
    }

    private func answer(_ signal: ProcessSignal) {
        switch signal {
        case .windowChange: draw()
        case .terminalStop:
            screen.leave()
            Signals.send(.stop, to: CurrentProcess.id)
        case .continue:
            screen.enter()
            draw()
        default: end()
        }
    }

    private func end() {
        isEnding = true
        loop.stop()
    }

    private func look() {
        let startedNs = loop.monotonicNs
        observer.look(at: [.cluster, .slots], withinMs: timeoutMs) { [unowned self] sample in
            let status = LagStatus(before: before, now: sample, thresholds: observer.thresholds)
            if sample.clusterError == nil { before = sample }
            view.add(status)
            self.status = status
            draw()
            let usedMs = Int((loop.monotonicNs - startedNs) / 1_000_000)
            loop.schedule(afterMs: max(intervalMs - usedMs, 50)) { [unowned self] in look() }
        }
    }

    private func draw() {
        guard !isEnding else { return }
        let size = Terminal.size ?? (columns: 80, rows: 24)
        guard let status else { return screen.draw([String("fanout lag   looking   q quits".prefix(size.columns))]) }
        screen.draw(view.screen(status, table: table, columns: size.columns, rows: size.rows))
    }
}
