/** What a peer is asked to do, from its arguments. */
record Task(
        String bootstrap, String input, String output, String group, long events, String model, boolean exactlyOnce) {
    /** Threads that step, as many as the machine of the measurements has cores. */
    static final int THREADS = 2;

    static Task of(String[] arguments) {
        Task task = new Task(arguments[0], arguments[1], arguments[2], arguments[3], Long.parseLong(arguments[4]),
                arguments[6], arguments[7].equals("exactly_once"));
        Meter.measure(task);
        return task;
    }
}
