internal import CLinux
internal import Glibc
internal import Runtime

/// A program that this process has started. Its end can be waited for on a thread or watched on a loop (`pidfd`), and
/// dropping it neither kills nor leaks: a child that has ended is reaped then.
public final class ChildProcess: Sendable {
    /// Where a child's output goes.
    public enum OutputPlace: Sendable, Equatable {
        case inherit
        case discard
        /// A pipe, which `output` or `error` reads.
        case pipe
        /// Appended to a file.
        case file(String)
    }

    public struct Options: Sendable {
        /// Replaces the whole environment; `nil` inherits it.
        public var environment: [String: String]?
        public var workingDirectory: String?
        public var output: OutputPlace = .inherit
        public var error: OutputPlace = .inherit
        /// A process group of its own: a terminal's Ctrl-C does not reach it, and `kill` with `group` reaches all in
        /// it.
        public var ownGroup = false
        /// The user and group to run as, which only root may choose.
        public var user: (id: UInt32, group: UInt32)?
        /// The child gets this signal when the thread that started it ends, so that it does not outlive a supervisor
        /// that was killed.
        public var dieWithParent: ProcessSignal?

        public init() {}
    }

    public enum Exit: Sendable, Equatable, CustomStringConvertible {
        case status(Int32)
        case signal(Int32)

        public var isSuccess: Bool { self == .status(0) }

        public var description: String {
            switch self {
            case .status(let status): "exited with status \(status)"
            case .signal(let number):
                "ended by \(ProcessSignal(rawValue: number)?.description ?? "signal \(number)")"
            }
        }
    }

    public let id: Int32
    public let program: String
    /// The reading ends of the pipes asked for, or -1. They block; the process owns them.
    public let output: Int32
    public let error: Int32
    /// Becomes readable when the child has ended.
    private let pidDescriptor: Int32
    private let reaped = Guarded<Exit?>(nil)

    /// Starts `program`, which is looked for in PATH unless it contains a slash. Throws when it cannot be started, the
    /// reason of the exec included.
    public init(_ program: String, _ arguments: [String] = [], options: Options = Options()) throws(SystemError) {
        self.program = program
        let resolved = try Self.find(program)
        let outputPipe = try Pipe.open(options.output)
        let errorPipe = try Pipe.open(options.error)
        id = try Self.spawn(
            resolved, [program] + arguments, options, output: outputPipe.writing, error: errorPipe.writing)
        output = outputPipe.takeReading()
        error = errorPipe.takeReading()
        pidDescriptor = fanout_pidfd_open(id)
    }

    deinit {
        if pidDescriptor >= 0 { _ = close(pidDescriptor) }
        if output >= 0 { _ = close(output) }
        if error >= 0 { _ = close(error) }
        // One that still runs becomes a zombie when it ends, which init collects when we end.
        _ = poll()
    }

    // MARK: Its end

    /// How it ended; `nil` while it runs.
    public func poll() -> Exit? { reap(wait: false) }

    /// Waits for the end.
    @discardableResult
    public func wait() -> Exit { reap(wait: true) ?? .status(-1) }

    /// Waits for at most `timeoutMs`; `nil` when it still runs then.
    public func wait(timeoutMs: Int) -> Exit? {
        let deadline = SystemTime.monotonicNs + UInt64(max(0, timeoutMs)) * 1_000_000
        while true {
            if let exit = poll() { return exit }
            let now = SystemTime.monotonicNs
            guard now < deadline else { return nil }
            var request = pollfd(fd: pidDescriptor, events: Int16(POLLIN), revents: 0)
            _ = unsafe Glibc.poll(&request, 1, Int32(clamping: (deadline - now) / 1_000_000 + 1))
        }
    }

    /// Calls `handler` on the loop when the child has ended, also when it has already.
    public func watchExit(on loop: EventLoop, _ handler: @escaping (Exit) -> Void) throws(SystemError) -> Registration {
        var registration: Registration?
        let made = try loop.watch(pidDescriptor) { [self] _ in
            guard let exit = poll() else { return }
            registration?.cancel()
            registration = nil
            handler(exit)
        }
        registration = made
        return made
    }

    public func kill(_ signal: ProcessSignal) { send(signal, to: id) }

    /// Reaches every process of the child's own group.
    public func killGroup(_ signal: ProcessSignal) { send(signal, to: -id) }

    /// Asks it to end, and makes it after `graceMs`.
    @discardableResult
    public func stop(_ signal: ProcessSignal = .terminate, graceMs: Int = 5000) -> Exit {
        kill(signal)
        if let exit = wait(timeoutMs: graceMs) { return exit }
        kill(.kill)
        return wait()
    }

    private func send(_ signal: ProcessSignal, to target: Int32) {
        // Not after it was reaped: its number may belong to another process by then.
        reaped.withLock { exit in
            if exit == nil || target < 0 { _ = Glibc.kill(target, signal.rawValue) }
        }
    }

    private func reap(wait: Bool) -> Exit? {
        if wait, reaped.withLock({ $0 }) == nil {
            // Waits without taking, so that the lock is not held meanwhile.
            var info = unsafe siginfo_t()
            while unsafe waitid(P_PID, id_t(id), &info, WEXITED | WNOWAIT) != 0, errno == EINTR {}
        }
        return reaped.withLock { exit in
            if let exit { return exit }
            var status: Int32 = 0
            let result = unsafe waitpid(id, &status, WNOHANG)
            if result == id {
                exit = status & 0x7f == 0 ? .status((status >> 8) & 0xff) : .signal(status & 0x7f)
            } else if result < 0, errno == ECHILD {
                // Someone else has collected it; how it ended is lost.
                exit = .status(-1)
            }
            return exit
        }
    }

    // MARK: Output

    /// Reads both pipes to their ends and waits: for short-lived programs.
    ///
    /// - Parameter pause: called every few milliseconds meanwhile; once it says `false` the program is asked to end.
    public static func run(
        _ program: String, _ arguments: [String] = [], options: Options = Options(), pause: (() -> Bool)? = nil
    ) throws(SystemError) -> (exit: Exit, output: String, error: String) {
        var options = options
        options.output = .pipe
        options.error = .pipe
        let child = try ChildProcess(program, arguments, options: options)
        var output: [UInt8] = []
        var error: [UInt8] = []
        var requests = [
            pollfd(fd: child.output, events: Int16(POLLIN), revents: 0),
            pollfd(fd: child.error, events: Int16(POLLIN), revents: 0),
        ]
        while requests[0].fd >= 0 || requests[1].fd >= 0 {
            if unsafe Glibc.poll(&requests, 2, pause == nil ? -1 : 10) < 0, errno != EINTR { break }
            if let pause, !pause() { child.kill(.terminate) }
            for index in 0..<2 where requests[index].revents != 0 {
                let part = readSome(requests[index].fd)
                if part.isEmpty { requests[index].fd = -1 }
                if index == 0 { output += part } else { error += part }
            }
        }
        return (child.wait(), String(decoding: output, as: UTF8.self), String(decoding: error, as: UTF8.self))
    }

    /// The next line of a pipe, without its end; `nil` at the end of the pipe. Byte by byte: for a child's first words.
    public static func readLine(_ descriptor: Int32) -> String? {
        var line: [UInt8] = []
        while true {
            var byte: UInt8 = 0
            let count = unsafe read(descriptor, &byte, 1)
            if count < 0, errno == EINTR { continue }
            if count <= 0 { return line.isEmpty ? nil : String(decoding: line, as: UTF8.self) }
            if byte == UInt8(ascii: "\n") { return String(decoding: line, as: UTF8.self) }
            line.append(byte)
        }
    }

    private static func readSome(_ descriptor: Int32) -> [UInt8] {
        unsafe [UInt8](unsafeUninitializedCapacity: 16 << 10) { buffer, count in
            repeat {
                count = unsafe read(descriptor, buffer.baseAddress, buffer.count)
            } while count < 0 && errno == EINTR
            count = max(0, count)
        }
    }

    // MARK: Starting

    private struct Pipe: ~Copyable {
        private var reading: Int32 = -1
        private(set) var writing: Int32 = -1

        init(open: Bool) throws(SystemError) {
            guard open else { return }
            var ends: [Int32] = [-1, -1]
            guard unsafe pipe2(&ends, Int32(O_CLOEXEC)) == 0 else { throw SystemError.last("pipe") }
            reading = ends[0]
            writing = ends[1]
        }

        init(appendingTo path: String) throws(SystemError) {
            writing = try retry("open", path) {
                unsafe fanout_open(path, Int32(O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC), 0o644)
            }
        }

        consuming func takeReading() -> Int32 {
            let taken = reading
            reading = -1
            return taken
        }

        deinit {
            if reading >= 0 { _ = Glibc.close(reading) }
            if writing >= 0 { _ = Glibc.close(writing) }
        }

        static func open(_ place: OutputPlace) throws(SystemError) -> Pipe {
            switch place {
            case .inherit: try Pipe(open: false)
            case .discard: try Pipe(appendingTo: "/dev/null")
            case .pipe: try Pipe(open: true)
            case .file(let path): try Pipe(appendingTo: path)
            }
        }
    }

    private static func spawn(
        _ path: String, _ arguments: [String], _ options: Options, output: Int32, error: Int32
    ) throws(SystemError) -> Int32 {
        let environment = options.environment.map { $0.map { "\($0.key)=\($0.value)" } }
        let child = unsafe withCStrings(arguments) { argv in
            unsafe withCStrings(environment ?? []) { envp in
                unsafe path.withCString { path in
                    unsafe (options.workingDirectory ?? "").withCString { directory in
                        var spawn = unsafe CLinux.fanout_spawn()
                        unsafe spawn.path = path
                        unsafe spawn.argv = UnsafePointer(argv)
                        unsafe spawn.envp = environment == nil ? UnsafePointer(environ) : UnsafePointer(envp)
                        unsafe spawn.directory = options.workingDirectory == nil ? nil : directory
                        unsafe spawn.out = output
                        unsafe spawn.err = error
                        unsafe spawn.own_group = options.ownGroup ? 1 : 0
                        unsafe spawn.set_user = options.user == nil ? 0 : 1
                        unsafe spawn.uid = options.user?.id ?? 0
                        unsafe spawn.gid = options.user?.group ?? 0
                        unsafe spawn.death_signal = options.dieWithParent?.rawValue ?? 0
                        return unsafe fanout_spawn(&spawn)
                    }
                }
            }
        }
        guard child > 0 else { throw SystemError.last("start", on: path) }
        return child
    }

    private static func withCStrings<Result>(
        _ strings: [String], _ body: (UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>) -> Result
    ) -> Result {
        let copies = UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>.allocate(capacity: strings.count + 1)
        for (index, string) in strings.enumerated() { unsafe copies[index] = unsafe strdup(string) }
        unsafe copies[strings.count] = nil
        defer {
            for index in strings.indices { unsafe free(copies[index]) }
            unsafe copies.deallocate()
        }
        return unsafe body(copies)
    }

    /// The program's path, by the rules of a shell.
    static func find(_ program: String) throws(SystemError) -> String {
        if program.contains("/") {
            guard File.exists(program) else { throw SystemError(errno: ENOENT, "start", on: program) }
            return program
        }
        for directory in (Environment["PATH"] ?? "/usr/local/bin:/usr/bin:/bin").split(separator: ":") {
            let path = "\(directory)/\(program)"
            if File.isExecutable(path) { return path }
        }
        throw SystemError(.notFound, "start", on: program, message: "not found in PATH")
    }
}
